#include "server/request_log.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "captured_stderr.h"
#include "test_model.h"

namespace hilomoe {
namespace {

constexpr int kOk = 0, kCancelled = 1, kInvalidArgument = 3;

TEST(RequestLogTest, TakesOneRequestInSoMany) {
  RequestLog log({.one_in = 10, .errors_per_second = 0, .serving_threads = 2});
  int wanted[2] = {};
  for (int i = 0; i < 1000; ++i) {
    for (int thread = 0; thread < 2; ++thread) wanted[thread] += log.Wants(thread, i % 7 == 0 ? kInvalidArgument : kOk);
  }
  EXPECT_EQ(wanted[0], 100);
  EXPECT_EQ(wanted[1], 100);
}

TEST(RequestLogTest, SwitchedOffItTakesNone) {
  RequestLog log({.one_in = 0, .errors_per_second = 0, .serving_threads = 1});
  for (int i = 0; i < 1000; ++i) EXPECT_FALSE(log.Wants(0, i % 3));
}

// However many fail, on however many threads.
TEST(RequestLogTest, AFloodOfErrorsIsNoFloodOfLines) {
  constexpr int kPerSecond = 5, kThreads = 4;
  const auto start = std::chrono::steady_clock::now();
  RequestLog log({.one_in = 0, .errors_per_second = kPerSecond, .serving_threads = kThreads});
  std::atomic<int> wanted{0};
  std::vector<std::jthread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      for (int i = 0; i < 100'000; ++i) wanted += log.Wants(thread, kInvalidArgument);
    });
  }
  threads.clear();
  const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
  EXPECT_GE(wanted, 1);
  EXPECT_LE(wanted, 1 + kPerSecond * passed.count());
}

TEST(RequestLogTest, WhoCancelsHasNotFailed) {
  RequestLog log({.one_in = 0, .errors_per_second = 1000, .serving_threads = 1});
  EXPECT_FALSE(log.Wants(0, kOk));
  EXPECT_FALSE(log.Wants(0, kCancelled));
  EXPECT_TRUE(log.Wants(0, kInvalidArgument));
}

TEST(RequestLogTest, ALineSaysWhatIsKnown) {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/stderr";
  const int file = open(path.c_str(), O_WRONLY | O_CREAT, 0600);
  {
    const RedirectedStderr redirected(file);
    RequestLogLine line;
    line.method = Method::kScore;
    line.model = "ctr";
    line.version = 7;
    line.candidates = 100;
    line.stage_ns = {1'500, 2'000, 3'000, 4'000, 0};
    line.duration_ns = 12'345;
    line.peer = "ipv4:10.0.0.1:1234";
    line.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    RequestLog::Write(line);
    RequestLogLine failed;
    failed.method = Method::kScoreStream;
    failed.status = absl::InvalidArgumentError(std::string(2000, 'e') + "\n");
    failed.traceparent = "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01";
    RequestLog::Write(failed);
  }
  close(file);
  const std::vector<nlohmann::json> lines = JsonLines(path);
  ASSERT_EQ(lines.size(), 2);
  const nlohmann::json& line = lines[0];
  EXPECT_EQ(line["message"], "request");
  EXPECT_EQ(line["level"], "info");
  EXPECT_EQ(line["method"], "Score");
  EXPECT_EQ(line["model"], "ctr");
  EXPECT_EQ(line["version"], 7);
  EXPECT_EQ(line["candidates"], 100);
  EXPECT_EQ(line["code"], "OK");
  EXPECT_EQ(line["decode_us"], 1.5);
  EXPECT_EQ(line["queue_us"], 2);
  EXPECT_EQ(line["evaluate_us"], 4);
  EXPECT_FALSE(line.contains("reply_us"));
  EXPECT_EQ(line["duration_us"], 12.345);
  EXPECT_EQ(line["peer"], "ipv4:10.0.0.1:1234");
  EXPECT_EQ(line["trace_id"], "0af7651916cd43dd8448eb211c80319c");
  EXPECT_EQ(line["span_id"], "b7ad6b7169203331");
  EXPECT_EQ(line["trace_flags"], "01");
  EXPECT_FALSE(line.contains("error"));

  const nlohmann::json& failed = lines[1];
  EXPECT_EQ(failed["level"], "warning");
  EXPECT_EQ(failed["code"], "INVALID_ARGUMENT");
  EXPECT_EQ(failed["error"], std::string(512, 'e'));
  EXPECT_EQ(failed["error_bytes"], 2001);
  EXPECT_FALSE(failed.contains("model"));
  EXPECT_FALSE(failed.contains("trace_id"));
}

}  // namespace
}  // namespace hilomoe
