#include "server/unary_call.h"

namespace hilomoe {

void UnaryMethod::Evaluate(Call* call, int) {
  call->Fail({grpc::StatusCode::INTERNAL, "a call that is answered on arrival was admitted"});
}

std::unique_ptr<Rpc> UnaryMethod::New(CallLoop* loop) { return std::make_unique<UnaryCall>(loop, this); }

void UnaryCall::Post() {
  events_to_come_.store(2, std::memory_order_relaxed);
  responder_.reset();
  Reset();
  responder_.emplace(&*context_);
  context_->AsyncNotifyWhenDone(done_tag_.HandOver());
  method_->request_(&*context_, &request_, &*responder_, loop_->queue(), arrived_tag_.HandOver());
}

void UnaryCall::Reply(const grpc::ByteBuffer& response) {
  // The client may take its time to read the response.
  model.reset();
  request_.Clear();
  responder_->Finish(response, grpc::Status::OK, finished_tag_.HandOver());
}

void UnaryCall::Fail(const grpc::Status& status) {
  model.reset();
  request_.Clear();
  responder_->FinishWithError(status, finished_tag_.HandOver());
}

void UnaryCall::OnArrived(bool ok, int thread) {
  if (!loop_->Arrived(method_, this, ok)) return;
  arrived_ = Clock::now();
  method_->Arrive(this, thread);
}

void UnaryCall::OnDone(bool, int) {
  NoteWhetherCancelled();
  Release();
}

void UnaryCall::OnFinished(bool, int) { Release(); }

void UnaryCall::Release() {
  if (events_to_come_.fetch_sub(1, std::memory_order_acq_rel) > 1) return;
  model.reset();
  request_.Clear();
  loop_->Ended(method_, this);
}

}  // namespace hilomoe
