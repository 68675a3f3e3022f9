// Captures a sample of the requests into a file, to be sent again; the layout stands in proto/hilomoe/v1/capture.proto.
//
// A thread of its own writes, from a queue of kMaxQueuedBytes: where the disk is slow or full, requests are not
// captured and counted as dropped, and no other thread waits.
#ifndef HILOMOE_SERVER_REQUEST_CAPTURE_H_
#define HILOMOE_SERVER_REQUEST_CAPTURE_H_

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "grpcpp/support/byte_buffer.h"

namespace hilomoe {

class RequestCapture {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr size_t kMaxQueuedBytes = 16 << 20;

  struct Options {
    std::string path = {};
    uint32_t one_in = 1;     // one request of so many
    uint64_t max_bytes = 0;  // of the file; what would make it larger ends the capture
    int serving_threads = 1;
  };

  // Creates the file, readable and writable for this user alone; one of an earlier capture becomes <path>.1, in place
  // of that. FAILED_PRECONDITION for a path where something else than a regular file is.
  static absl::StatusOr<std::unique_ptr<RequestCapture>> Start(const Options& options);
  // Writes what is queued.
  ~RequestCapture();

  // On serving thread `thread`, once for each request when it arrives: captures it if its turn has come. What is not
  // sampled costs a few instructions; what is, some allocations and a lock for the time of a few moves. `method` as in
  // CapturedRequest, with static lifetime; time_left: until the client's deadline.
  void Offer(int thread, const char* method, Clock::time_point arrived, std::chrono::nanoseconds time_left,
             const grpc::ByteBuffer& request) {
    if (threads_[static_cast<size_t>(thread)].until_next-- == 0) Take(thread, method, arrived, time_left, request);
  }

  uint64_t captured() const { return captured_.load(); }  // requests in the file
  uint64_t dropped() const { return dropped_.load(); }    // sampled ones that are not
  uint64_t bytes() const { return bytes_.load(); }        // of the file

 private:
  struct alignas(64) Thread {
    uint32_t until_next = 0;
  };
  struct Item {
    const char* method;
    uint64_t offset_ns, timeout_ns;
    grpc::ByteBuffer request;
  };

  RequestCapture(const Options& options, int file);
  void Take(int thread, const char* method, Clock::time_point arrived, std::chrono::nanoseconds time_left,
            const grpc::ByteBuffer& request);
  void Work();
  void Write(const std::vector<Item>& items);
  bool Append(const std::string& bytes);

  const Options options_;
  const int file_;
  const Clock::time_point start_ = Clock::now();
  std::vector<Thread> threads_;
  std::atomic<uint64_t> captured_{0}, dropped_{0}, bytes_{0};
  std::atomic<bool> full_{false};
  bool failing_ = false;  // the writer's: the last record could not be written

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Item> queue_;  // these guarded by mutex_
  size_t queued_bytes_ = 0;
  bool stop_ = false;
  std::thread writer_;
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_REQUEST_CAPTURE_H_
