// Asynchronous gRPC calls over one shared completion queue.
//
// Serving threads wait on the queue; whoever gets an event handles it. Calls are asked of gRPC ahead of time and their
// objects are used again, so that a steady load allocates none. Work goes through an AdmissionQueue that runs at most
// threads - 1 evaluations at once: one thread is always free to read, refuse and finish calls.
#ifndef HILOMOE_SERVER_CALL_LOOP_H_
#define HILOMOE_SERVER_CALL_LOOP_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "grpcpp/completion_queue.h"
#include "server/admission_queue.h"
#include "server/evaluation_cost.h"
#include "server/overload_detector.h"

namespace hilomoe {

class CallLoop;

// What gRPC is given with an operation and hands to a serving thread when that has ended.
class CompletionTag {
 public:
  // On serving thread `thread`. ok as grpc::CompletionQueue::Next tells.
  virtual void Complete(bool ok, int thread) = 0;
  // To be given to gRPC.
  void* HandOver();

 protected:
  ~CompletionTag() = default;
};

// Calls a member function of its owner.
template <class Owner, void (Owner::*kComplete)(bool ok, int thread)>
class MemberTag final : public CompletionTag {
 public:
  explicit MemberTag(Owner* owner) : owner_(owner) {}
  void Complete(bool ok, int thread) override { (owner_->*kComplete)(ok, thread); }

 private:
  Owner* const owner_;
};

// A call, or a place for the next one.
class Rpc : public AdmissionQueue::Item {
 public:
  virtual ~Rpc() = default;

 protected:
  friend class CallLoop;
  // Asks gRPC for the next call.
  virtual void Post() = 0;
  // The work that was admitted, on this thread.
  virtual void Evaluate(int thread) = 0;
};

class RpcMethod {
 public:
  virtual ~RpcMethod() = default;

 protected:
  friend class CallLoop;
  virtual std::unique_ptr<Rpc> New(CallLoop* loop) = 0;
  // The server is about to be shut down: calls that would go on for as long as their clients like are to be ended.
  virtual void EndCalls() {}

 private:
  std::atomic<int> posted_{0};  // calls asked for and not come yet
};

class CallLoop {
 public:
  CallLoop(std::unique_ptr<grpc::ServerCompletionQueue> queue, uint32_t evaluation_threads,
           uint64_t max_queued_candidates);
  // Without Start or after Stop.
  ~CallLoop();

  // Once, after the gRPC server has started. The methods must outlive Stop. RESOURCE_EXHAUSTED when threads cannot be
  // had; with some, it has started all the same.
  absl::Status Start(absl::Span<RpcMethod* const> methods);
  // Then it must be stopped.
  bool started() const { return !threads_.empty(); }
  // Calls that have come and are not over; one that comes or ends just now may be counted or not. Not once gRPC shuts
  // down.
  int CallsUnderWay() const;
  // Waits until every call is over. To be called when grpc::Server::Shutdown has begun or is about to: from then on
  // gRPC gives back the calls that were asked for, and no others come.
  void WaitForCalls();
  // Once, after grpc::Server::Shutdown has returned: waits for the calls under way and ends the threads.
  void Stop();

  // Evaluates `rpc` on this thread and then whatever else waits, or leaves it to another thread; the caller must not
  // touch it any more. False: too much waits, the call is to be refused. rpc->candidates is its weight.
  bool Admit(Rpc* rpc, int thread);

  // How long a request that comes now would wait, by what was measured so far: 0 while it could run at once, or before
  // anything was measured. How long its evaluation would then take.
  double EstimateWaitNs() const;
  OverloadDetector& overload() { return overload_; }
  double EstimateEvaluationNs(uint32_t candidates) const { return candidates * cost_.NsPerCandidate(); }
  // A request of this weight took `ns` on serving thread `thread`, the caller.
  void RecordCost(int thread, double candidates, double ns) { cost_.Record(thread, candidates, ns); }

  // For Rpcs. Arrived: what was asked for has come; the object stays the caller's unless this is false: then the server
  // shuts down, and it is gone. Ended: no event of it will come any more; it is posted again or gone.
  bool Arrived(RpcMethod* method, Rpc* rpc, bool ok);
  void Ended(RpcMethod* method, Rpc* rpc);

  grpc::ServerCompletionQueue* queue() const { return queue_.get(); }
  const AdmissionQueue& admission() const { return admission_; }
  int serving_threads() const { return static_cast<int>(admission_.max_running()) + 1; }

 private:
  void PostNew(RpcMethod* method);
  void Serve(int thread);
  void Delete(Rpc* rpc);

  const std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  AdmissionQueue admission_;
  EvaluationCost cost_;
  OverloadDetector overload_;
  std::vector<RpcMethod*> methods_;
  std::vector<std::thread> threads_;
  std::atomic<int> rpcs_{0};  // objects alive
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_CALL_LOOP_H_
