// Unary calls on a CallLoop: raw bytes in, raw bytes out.
#ifndef HILOMOE_SERVER_UNARY_CALL_H_
#define HILOMOE_SERVER_UNARY_CALL_H_

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "grpcpp/support/async_unary_call.h"
#include "server/call.h"

namespace hilomoe {

class UnaryCall;

using UnaryResponder = grpc::ServerAsyncResponseWriter<grpc::ByteBuffer>;

class UnaryMethod : public RpcMethod {
 public:
  // RequestX of a generated raw service.
  using RequestFunction = std::function<void(grpc::ServerContext* context, grpc::ByteBuffer* request,
                                             UnaryResponder* responder, grpc::ServerCompletionQueue* queue, void* tag)>;
  explicit UnaryMethod(RequestFunction request) : request_(std::move(request)) {}

 protected:
  friend class UnaryCall;
  // A call has come, on serving thread `thread`: to be answered at once, or given to CallLoop::Admit.
  virtual void Arrive(Call* call, int thread) = 0;
  // It has been admitted: to be answered.
  virtual void Evaluate(Call* call, int thread);

  std::unique_ptr<Rpc> New(CallLoop* loop) final;

 private:
  const RequestFunction request_;
};

class UnaryCall final : public Call {
 public:
  UnaryCall(CallLoop* loop, UnaryMethod* method) : loop_(loop), method_(method) {}

  void Reply(const grpc::ByteBuffer& response) override;
  void Fail(const grpc::Status& status) override;

 private:
  void Post() override;
  void Evaluate(int thread) override { method_->Evaluate(this, thread); }
  void OnArrived(bool ok, int thread);
  void OnDone(bool ok, int thread);
  void OnFinished(bool ok, int thread);
  void Release();

  CallLoop* const loop_;
  UnaryMethod* const method_;
  std::optional<UnaryResponder> responder_;
  std::atomic<int> events_to_come_{0};  // done and finished, in either order
  MemberTag<UnaryCall, &UnaryCall::OnArrived> arrived_tag_{this};
  MemberTag<UnaryCall, &UnaryCall::OnDone> done_tag_{this};
  MemberTag<UnaryCall, &UnaryCall::OnFinished> finished_tag_{this};
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_UNARY_CALL_H_
