#include "server/log.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "captured_stderr.h"
#include "test_model.h"

namespace hilomoe {
namespace {

constexpr std::chrono::seconds kPatience{30};

TEST(LogTest, ALineIsAnObject) {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/stderr";
  const int file = open(path.c_str(), O_WRONLY | O_CREAT, 0600);
  {
    const RedirectedStderr redirected(file);
    LogInfo("loaded \"it\"\n", {{"bytes", 12}, {"path", "a\xff"}});
    LogError("broken");
    LogObject(LogLevel::kWarning, "request", {{"code", "INTERNAL"}});
  }
  close(file);
  const std::vector<nlohmann::json> lines = JsonLines(path);
  ASSERT_EQ(lines.size(), 3);
  EXPECT_EQ(lines[0]["level"], "info");
  EXPECT_EQ(lines[0]["message"], "loaded \"it\"\n");
  EXPECT_EQ(lines[0]["bytes"], 12);
  EXPECT_EQ(lines[0]["time"].get<std::string>().size(), std::string("2026-01-02T03:04:05.678Z").size());
  EXPECT_EQ(lines[1]["level"], "error");
  EXPECT_EQ(lines[2]["level"], "warning");
  EXPECT_EQ(lines[2]["code"], "INTERNAL");
}

// Nobody reads the pipe: who logs goes on, and what was lost has been counted when the pipe is read again.
TEST(LogTest, ABlockedPipeHoldsNobodyUp) {
  int pipe_ends[2];
  ASSERT_EQ(pipe(pipe_ends), 0);
  ASSERT_GE(fcntl(pipe_ends[1], F_SETPIPE_SZ, 4096), 4096);
  constexpr int kLines = 5000;
  const uint64_t dropped = DroppedLogLines();
  std::string text;
  std::thread reader;
  {
    const RedirectedStderr redirected(pipe_ends[1]);
    close(pipe_ends[1]);
    for (int i = 0; i < kLines; ++i) LogInfo("line", {{"i", i}, {"padding", std::string(200, 'x')}});
    EXPECT_GT(DroppedLogLines(), dropped);
    EXPECT_FALSE(FlushLog(std::chrono::milliseconds(1)));
    reader = std::thread([&] {
      char bytes[4096];
      for (ssize_t n = 0; (n = read(pipe_ends[0], bytes, sizeof(bytes))) > 0;) text.append(bytes, n);
    });
    EXPECT_TRUE(FlushLog(kPatience));
  }
  reader.join();
  close(pipe_ends[0]);
  std::istringstream lines(text);
  int read_lines = 0, last = -1;
  for (std::string line; std::getline(lines, line); ++read_lines) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    ASSERT_TRUE(json.is_object()) << line;
    EXPECT_GT(json["i"].get<int>(), last);
    last = json["i"];
  }
  EXPECT_EQ(last, kLines - 1) << "the oldest are dropped, not the newest";
  EXPECT_EQ(static_cast<uint64_t>(read_lines) + DroppedLogLines() - dropped, kLines);
}

TEST(LogTest, WhatCannotBeWrittenIsCounted) {
  const int full = open("/dev/full", O_WRONLY);
  const uint64_t dropped = DroppedLogLines();
  {
    const RedirectedStderr redirected(full);
    for (int i = 0; i < 3; ++i) LogInfo("nowhere");
  }
  close(full);
  EXPECT_EQ(DroppedLogLines(), dropped + 3);
}

// Without SIGPIPE ending the process.
TEST(LogTest, AReaderMayGoAway) {
  int pipe_ends[2];
  ASSERT_EQ(pipe(pipe_ends), 0);
  close(pipe_ends[0]);
  const uint64_t dropped = DroppedLogLines();
  {
    const RedirectedStderr redirected(pipe_ends[1]);
    LogInfo("nobody hears this");
  }
  close(pipe_ends[1]);
  EXPECT_EQ(DroppedLogLines(), dropped + 1);
}

}  // namespace
}  // namespace hilomoe
