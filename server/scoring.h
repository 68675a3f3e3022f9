// The way of a scoring request, whatever its wire protocol: head, admission, evaluation, reply.
#ifndef HILOMOE_SERVER_SCORING_H_
#define HILOMOE_SERVER_SCORING_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "server/call.h"
#include "server/call_endings.h"
#include "server/model_repository.h"
#include "server/request_capture.h"
#include "server/request_log.h"
#include "server/server_metrics.h"
#include "server/wire_protocol.h"

namespace hilomoe {

// A request that waits in the queue weighs as many candidates as it has, but at least one for so many bytes, so that
// the queue's limit bounds memory, too.
inline constexpr size_t kBytesPerQueuedCandidate = 4096;

// What methods work with; it outlives them.
struct MethodDependencies {
  CallLoop* loop = nullptr;
  const ModelRepository* repository = nullptr;
  ServerMetrics* metrics = nullptr;
  RequestLog* log = nullptr;          // null: nothing is logged
  RequestCapture* capture = nullptr;  // null: nothing is captured
};

// Refused at once are requests that are wrong, too large, too late, or would wait too long: behind more than the
// queue's max_queued_candidates, past their deadline, or, when the queue stays long, for more than max_queue_ms. The
// latter say in the trailer grpc-retry-pushback-ms when to come again. What nobody waits for any more is dropped on
// arrival, before evaluation, and between two tiles of it.
class Scoring {
 public:
  struct Options {
    Method method = Method::kScore;
    std::function<std::unique_ptr<WireProtocol>()> protocol;
    uint32_t max_candidates = 0;
    uint32_t max_queue_ms = 0;
    // A stream's requests: they wait behind all others instead of being refused, and errors are responses.
    bool stream = false;
  };
  Scoring(const Options& options, const MethodDependencies& dependencies);

  // As the methods of the same names, on serving thread `thread`.
  void Arrive(Call* call, int thread);
  void Evaluate(Call* call, int thread);

 private:
  // What a serving thread uses again for every request.
  struct Local {
    explicit Local(const ModelRepository& repository) : models(repository) {}
    ModelTableReader models;
    RequestHead head;
    std::unique_ptr<WireProtocol> protocol;
  };

  bool ShedIfLate(Call* call, int thread, ShedReason late);
  bool ShedIfTooLong(Call* call, int thread);
  void ShedForLater(Call* call, int thread, ShedReason reason, double wait_ns);
  absl::Status Accept(Call* call, Local* local) const;
  absl::Status Score(Call* call, int thread, Call::Clock::time_point start, Local* local, ModelMetrics::Shard* metrics,
                     const google::protobuf::Message** response, ScoreTimes* times) const;
  void Fail(Call* call, int thread, const absl::Status& status);

  const Options options_;
  CallLoop* const loop_;
  RequestCapture* const capture_;
  const CallEndings endings_;
  std::vector<std::unique_ptr<Local>> locals_;  // per serving thread
};

// A method is a Scoring on one of the two kinds of calls.
template <class BaseMethod>
class ScoringMethod final : public BaseMethod {
 public:
  ScoringMethod(typename BaseMethod::RequestFunction request, const Scoring::Options& options,
                const MethodDependencies& dependencies)
      : BaseMethod(std::move(request)), scoring_(options, dependencies) {}

 private:
  void Arrive(Call* call, int thread) override { scoring_.Arrive(call, thread); }
  void Evaluate(Call* call, int thread) override { scoring_.Evaluate(call, thread); }

  Scoring scoring_;
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_SCORING_H_
