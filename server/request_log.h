// Log lines about requests: a sample of all, and some of those that fail.
#ifndef HILOMOE_SERVER_REQUEST_LOG_H_
#define HILOMOE_SERVER_REQUEST_LOG_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "grpcpp/server_context.h"
#include "server/model_metrics.h"

namespace hilomoe {

// A request that is to be logged.
struct RequestLogLine {
  // Takes what the context knows of the caller; the context may go afterwards.
  void TakeCaller(const grpc::ServerContext& context);

  Method method = Method::kScore;
  std::string model;  // empty: none was found
  uint64_t version = 0;
  uint32_t candidates = 0;
  int code = 0;                              // of gRPC
  std::string error;                         // the status' message
  std::array<uint64_t, kStages> stage_ns{};  // 0: it did not come so far
  uint64_t duration_ns = 0;
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

  // A line with what is known; ids of traces only from a valid traceparent.
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
