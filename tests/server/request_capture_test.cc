#include "server/request_capture.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "test_client.h"
#include "test_model.h"
#include "tools/common/capture_reader.h"

namespace hilomoe {
namespace {

namespace fs = std::filesystem;
using Clock = RequestCapture::Clock;
using std::chrono::nanoseconds;

constexpr char kMethod[] = "/hilomoe.v1.ScoringService/Score";
constexpr uint64_t kPlenty = 1 << 30;

// In two slices, as gRPC's buffers may be.
grpc::ByteBuffer Buffer(const std::string& bytes) {
  const grpc::Slice slices[] = {grpc::Slice(bytes.substr(0, bytes.size() / 2)),
                                grpc::Slice(bytes.substr(bytes.size() / 2))};
  return grpc::ByteBuffer(slices, 2);
}

struct Captured {
  std::vector<v1::CapturedRequest> requests;
  bool truncated = false;
};

Captured Read(const std::string& path) {
  Captured captured;
  auto reader = CaptureReader::Open(path);
  EXPECT_TRUE(reader.ok()) << reader.status();
  if (!reader.ok()) return captured;
  v1::CapturedRequest request;
  absl::StatusOr<bool> found = reader->Next(&request);
  for (; found.ok() && *found; found = reader->Next(&request)) captured.requests.push_back(request);
  EXPECT_TRUE(found.ok()) << found.status();
  captured.truncated = reader->truncated();
  return captured;
}

class RequestCaptureTest : public ::testing::Test {
 protected:
  std::unique_ptr<RequestCapture> Start(RequestCapture::Options options = {}) {
    options.path = path_;
    if (options.max_bytes == 0) options.max_bytes = kPlenty;
    auto capture = RequestCapture::Start(options);
    EXPECT_TRUE(capture.ok()) << capture.status();
    return *std::move(capture);
  }

  const TemporaryDirectory directory_;
  const std::string path_ = directory_.path() + "/requests.capture";
};

TEST_F(RequestCaptureTest, WhatComesIsInTheFile) {
  constexpr int kThreads = 3, kEach = 200;
  auto capture = Start({.serving_threads = kThreads});
  const Clock::time_point start = Clock::now();
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      for (int i = 0; i < kEach; ++i) {
        capture->Offer(thread, kMethod, start + nanoseconds(i), nanoseconds(5 * i),
                       Buffer(std::to_string(thread) + ":" + std::to_string(i)));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_TRUE(WaitUntil([&] { return capture->captured() == kThreads * kEach; }));
  EXPECT_EQ(capture->bytes(), fs::file_size(path_));
  EXPECT_EQ(capture->dropped(), 0);
  struct stat found {};
  ASSERT_EQ(stat(path_.c_str(), &found), 0);
  EXPECT_EQ(found.st_mode & 0777, 0600);

  // Readable while the server runs, too.
  const Captured captured = Read(path_);
  EXPECT_FALSE(captured.truncated);
  ASSERT_EQ(captured.requests.size(), kThreads * kEach);
  std::vector<int> next(kThreads);
  for (const v1::CapturedRequest& request : captured.requests) {
    const auto thread = static_cast<size_t>(request.request()[0] - '0');
    const int i = next[thread]++;
    EXPECT_EQ(request.request(), std::to_string(thread) + ":" + std::to_string(i));
    EXPECT_EQ(request.method(), kMethod);
    EXPECT_EQ(request.timeout_ns(), i == 0 ? 1 : 5 * i) << "a deadline that has passed is not none";
    EXPECT_EQ(request.offset_ns() - captured.requests[0].offset_ns(), static_cast<uint64_t>(i));
  }
}

TEST_F(RequestCaptureTest, OneInSoManyAndCallsWithoutDeadline) {
  auto capture = Start({.one_in = 10, .serving_threads = 1});
  for (int i = 0; i < 1000; ++i) {
    capture->Offer(0, kMethod, Clock::now(), nanoseconds::max() - nanoseconds(i), Buffer("x"));
  }
  capture.reset();  // writes what is queued
  const Captured captured = Read(path_);
  ASSERT_EQ(captured.requests.size(), 100);
  EXPECT_EQ(captured.requests[0].timeout_ns(), 0);
  EXPECT_EQ(CaptureReader::Open(path_)->start().one_in(), 10);
}

TEST_F(RequestCaptureTest, EndsAtTheLargestSize) {
  auto capture = Start({.max_bytes = 10'000, .serving_threads = 1});
  for (int i = 0; i < 100; ++i)
    capture->Offer(0, kMethod, Clock::now(), nanoseconds::max(), Buffer(std::string(300, 'x')));
  capture.reset();
  EXPECT_LE(fs::file_size(path_), 10'000);
  const Captured captured = Read(path_);
  EXPECT_FALSE(captured.truncated);
  EXPECT_GT(captured.requests.size(), 20);
  EXPECT_LT(captured.requests.size(), 34);
}

TEST_F(RequestCaptureTest, AnEarlierCaptureIsKept) {
  for (const char* bytes : {"first", "second", "third"}) {
    auto capture = Start({.serving_threads = 1});
    capture->Offer(0, kMethod, Clock::now(), nanoseconds::max(), Buffer(bytes));
  }
  EXPECT_EQ(Read(path_).requests.at(0).request(), "third");
  EXPECT_EQ(Read(path_ + ".1").requests.at(0).request(), "second");
}

// A file size limit fails writes in the middle of a record, as a full disk does.
TEST_F(RequestCaptureTest, AFullDiskLosesRequestsAndNothingElse) {
  signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  auto capture = Start({.serving_threads = 1});
  const auto offer = [&](int n) {
    for (int i = 0; i < n; ++i) {
      capture->Offer(0, kMethod, Clock::now(), nanoseconds::max(), Buffer(std::string(1000, 'x')));
    }
  };
  const rlimit small = {4500, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  offer(10);
  const bool counted = WaitUntil([&] { return capture->captured() + capture->dropped() == 10; });
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  ASSERT_TRUE(counted);
  EXPECT_EQ(capture->captured(), 4);
  EXPECT_FALSE(Read(path_).truncated) << "half a record was left";
  // There is room again.
  offer(2);
  capture.reset();
  const Captured captured = Read(path_);
  EXPECT_FALSE(captured.truncated);
  EXPECT_EQ(captured.requests.size(), 6);
}

// The queue's bound: a request that is larger than it does not even get in.
TEST_F(RequestCaptureTest, WhatTheQueueCannotHoldIsDropped) {
  auto capture = Start({.serving_threads = 1});
  capture->Offer(0, kMethod, Clock::now(), nanoseconds::max(),
                 Buffer(std::string(RequestCapture::kMaxQueuedBytes, 'x')));
  EXPECT_EQ(capture->dropped(), 1);
  capture->Offer(0, kMethod, Clock::now(), nanoseconds::max(), Buffer("small"));
  capture.reset();
  EXPECT_EQ(Read(path_).requests.size(), 1);
}

TEST_F(RequestCaptureTest, OtherThingsUnderTheNameAreLeftAlone) {
  const auto start = [](const std::string& path) {
    return RequestCapture::Start({.path = path, .max_bytes = kPlenty}).status().code();
  };
  EXPECT_EQ(start(directory_.path()), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(start("/dev/full"), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(start(directory_.path() + "/no/such/directory"), absl::StatusCode::kNotFound);
  fs::create_symlink("/dev/null", path_);
  EXPECT_EQ(start(path_), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace hilomoe
