// Log lines about requests: a sample of all, and some of those that fail.
#ifndef HILOMOE_SERVER_REQUEST_LOG_H_
#define HILOMOE_SERVER_REQUEST_LOG_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "server/call.h"
#include "server/model_metrics.h"

namespace hilomoe {

// What a line says; ids of traces only from a valid traceparent.
struct RequestLogLine {
  Method method = Method::kScore;
  std::string model;  // empty: none was found
  uint64_t version = 0;
  uint32_t candidates = 0;
  absl::Status status;
  std::array<uint64_t, kStages> stage_ns{};  // 0: it did not come so far
  uint64_t duration_ns = 0;                  // from arrival until it is about to be answered
  std::string peer;
  std::string traceparent;  // as it came; empty: not there, or not once
};

class RequestLog {
 public:
  struct Options {
    uint32_t one_in = 0;             // one request of so many; 0 = none
    uint32_t errors_per_second = 0;  // failed ones beside these, at most, all threads together; 0 = none
    int serving_threads = 1;
  };
  explicit RequestLog(const Options& options);

  // Whether a request that ends with `code` on serving thread `thread` is to be logged: asked once for each. Costs a
  // few instructions; no lock, no allocation. Cancelled requests are the client's will and count as none that failed.
  bool Wants(int thread, int code);

  // Of the request that `call` is about to answer.
  static void Write(const Call& call, Method method, const absl::Status& status);
  static void Write(const RequestLogLine& line);

 private:
  struct alignas(64) Thread {
    uint32_t until_next = 0;
  };
  bool TakeErrorTurn();

  const uint32_t one_in_;
  const int64_t error_interval_ns_;  // 0 = none
  std::vector<Thread> threads_;
  std::atomic<int64_t> next_error_ns_{0};  // of the steady clock
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_REQUEST_LOG_H_
