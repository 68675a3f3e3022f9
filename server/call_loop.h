// Asynchronous unary gRPC calls over one shared completion queue.
//
// Serving threads wait on the queue; whoever gets a call reads it. Calls are asked of gRPC ahead of time and their
// objects are used again, so that a steady load allocates none. Work goes through an AdmissionQueue that runs at most
// threads - 1 evaluations at once: one thread is always free to read, refuse and finish calls.
#ifndef HILOMOE_SERVER_CALL_LOOP_H_
#define HILOMOE_SERVER_CALL_LOOP_H_

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "absl/types/span.h"
#include "grpcpp/completion_queue.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/async_unary_call.h"
#include "grpcpp/support/byte_buffer.h"
#include "server/admission_queue.h"
#include "server/model_repository.h"

namespace hilomoe {

class AsyncCall;
class CallLoop;

using AsyncResponder = grpc::ServerAsyncResponseWriter<grpc::ByteBuffer>;

// One RPC method: raw bytes in, raw bytes out.
class AsyncMethod {
 public:
  virtual ~AsyncMethod() = default;

  // Forwards to RequestX of the generated raw service.
  virtual void Request(grpc::ServerContext* context, grpc::ByteBuffer* request, AsyncResponder* responder,
                       grpc::ServerCompletionQueue* queue, void* tag) = 0;
  // A call has come, on serving thread `thread`: to be answered at once, or given to CallLoop::Admit.
  virtual void Arrive(AsyncCall* call, int thread) = 0;
  // It has been admitted: to be answered.
  virtual void Evaluate(AsyncCall* call, int thread) = 0;

 private:
  friend class AsyncCall;
  friend class CallLoop;
  std::atomic<int> posted_{0};  // calls asked for and not come yet
};

// One call from its arrival to its answer. Belongs to one thread at a time; after Reply or Fail the method must not
// touch it.
class AsyncCall : public AdmissionQueue::Item {
 public:
  using Clock = std::chrono::steady_clock;

  grpc::ByteBuffer* request() { return &request_; }
  AsyncMethod* method() { return method_; }
  Clock::time_point arrived() const { return arrived_; }
  // The client has gone or its deadline has passed.
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }
  bool deadline_passed() const { return context_->deadline() <= std::chrono::system_clock::now(); }

  void Reply(const grpc::ByteBuffer& response);
  void Fail(const grpc::Status& status);

  std::shared_ptr<const ServedModel> model;  // the method's: which one the call was admitted for

 private:
  friend class CallLoop;
  enum class Event { kArrived, kDone, kFinished };
  struct Tag {
    AsyncCall* call;
    Event event;
  };

  AsyncCall(CallLoop* loop, AsyncMethod* method) : loop_(loop), method_(method) {}
  void Post();

  CallLoop* const loop_;
  AsyncMethod* const method_;
  std::optional<grpc::ServerContext> context_;
  std::optional<AsyncResponder> responder_;
  grpc::ByteBuffer request_;
  Clock::time_point arrived_;
  std::atomic<bool> cancelled_{false};
  std::atomic<int> events_to_come_{0};  // kDone and kFinished, in either order
  Tag arrived_tag_{this, Event::kArrived};
  Tag done_tag_{this, Event::kDone};
  Tag finished_tag_{this, Event::kFinished};
};

class CallLoop {
 public:
  CallLoop(std::unique_ptr<grpc::ServerCompletionQueue> queue, uint32_t evaluation_threads,
           uint64_t max_queued_candidates);
  // Without Start or after Stop.
  ~CallLoop();

  // Once, after the gRPC server has started. The methods must outlive Stop.
  void Start(absl::Span<AsyncMethod* const> methods);
  // Waits until every call is over. To be called when grpc::Server::Shutdown has begun or is about to: from then on
  // gRPC gives back the calls that were asked for, and no others come.
  void WaitForCalls();
  // Once, after grpc::Server::Shutdown has returned: waits for the calls under way and ends the threads.
  void Stop();

  // Evaluates `call` on this thread and then whatever else waits, or leaves it to another thread; the caller must not
  // touch it any more. False: too much waits, the call is to be refused. call->candidates is its weight.
  bool Admit(AsyncCall* call, int thread);

  const AdmissionQueue& admission() const { return admission_; }
  int serving_threads() const { return static_cast<int>(admission_.max_running()) + 1; }

 private:
  friend class AsyncCall;
  void PostNew(AsyncMethod* method);
  void Serve(int thread);
  void HandleArrival(AsyncCall* call, bool ok, int thread);
  void Release(AsyncCall* call);
  void Delete(AsyncCall* call);

  const std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  AdmissionQueue admission_;
  std::vector<std::thread> threads_;
  std::atomic<int> calls_{0};  // objects alive
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_CALL_LOOP_H_
