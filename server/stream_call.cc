#include "server/stream_call.h"

#include <vector>

#include "server/grpc_status.h"

namespace hilomoe {
namespace {

grpc::Status Ending() {
  return {grpc::StatusCode::UNAVAILABLE, "the server shuts down; send what was not answered to another one"};
}

}  // namespace

std::unique_ptr<Rpc> StreamMethod::New(CallLoop* loop) { return std::make_unique<StreamCall>(loop, this); }

void StreamMethod::EndCalls() {
  ending_.store(true);
  std::vector<StreamCall*> calls;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (StreamCall* call = open_; call != nullptr; call = call->next_) {
      if (call->AddReference()) calls.push_back(call);
    }
  }
  for (StreamCall* call : calls) {
    call->EndIfIdle();
    call->Release();
  }
}

void StreamMethod::Link(StreamCall* call) {
  const std::lock_guard<std::mutex> lock(mutex_);
  call->previous_ = nullptr;
  call->next_ = open_;
  if (open_ != nullptr) open_->previous_ = call;
  open_ = call;
}

void StreamMethod::Unlink(StreamCall* call) {
  const std::lock_guard<std::mutex> lock(mutex_);
  (call->previous_ == nullptr ? open_ : call->previous_->next_) = call->next_;
  if (call->next_ != nullptr) call->next_->previous_ = call->previous_;
}

void StreamCall::Post() {
  pending_.store(0, std::memory_order_relaxed);
  // Done, and arriving, which becomes reading: the call may be done before anybody has looked at its arrival.
  references_.store(2, std::memory_order_relaxed);
  written_ = true;
  stream_.reset();
  Reset();
  stream_.emplace(&*context_);
  context_->AsyncNotifyWhenDone(done_tag_.HandOver());
  method_->request_(&*context_, &*stream_, loop_->queue(), arrived_tag_.HandOver());
}

void StreamCall::OnArrived(bool ok, int) {
  if (!loop_->Arrived(method_, this, ok)) return;
  method_->Link(this);
  pending_.store(kReading);
  // After pending_ has changed: StreamMethod::EndCalls sets the one and then reads the other.
  if (method_->ending_.load() && EndIfIdle()) {
    Release();
  } else {
    stream_->Read(&request_, read_tag_.HandOver());
  }
}

void StreamCall::Reply(const grpc::ByteBuffer& response) {
  // A stream whose client pauses shall keep neither a version that has been replaced nor the bytes of the request.
  model.reset();
  request_.Clear();
  references_.fetch_add(1);  // the work's becomes reading's; writing
  pending_.store(kReading | kWriting);
  stream_->Write(response, written_tag_.HandOver());
  stream_->Read(&request_, read_tag_.HandOver());
}

void StreamCall::Fail(const grpc::Status& status) {
  model.reset();
  request_.Clear();
  stream_->Finish(status, finished_tag_.HandOver());
}

void StreamCall::OnRead(bool ok, int thread) {
  read_ = ok;
  Transferred(kReading, thread);
}

void StreamCall::OnWritten(bool ok, int thread) {
  written_ = ok;
  Transferred(kWriting, thread);
}

void StreamCall::Transferred(Pending transfer, int thread) {
  const uint32_t before = pending_.fetch_and(~transfer);
  if (before != transfer) {  // another one is pending, or the call was ended
    if (transfer == kWriting && method_->ending_.load()) EndIfIdle();
    Release();
    return;
  }
  if (!read_ || !written_) {
    // The client has no more requests, or has gone.
    Fail(grpc::Status::OK);
  } else if (method_->ending_.load()) {
    Fail(Ending());
  } else {
    arrived_ = Clock::now();
    method_->Arrive(this, thread);
  }
}

bool StreamCall::EndIfIdle() {
  references_.fetch_add(1);  // finished
  uint32_t idle = kReading;
  if (pending_.compare_exchange_strong(idle, kReading | kEnded)) {
    stream_->Finish(Ending(), finished_tag_.HandOver());
    return true;
  }
  Release();
  return (idle & kEnded) != 0;
}

bool StreamCall::AddReference() {
  int references = references_.load();
  while (references > 0) {
    if (references_.compare_exchange_weak(references, references + 1)) return true;
  }
  return false;
}

void StreamCall::OnDone(bool, int) {
  NoteWhetherCancelled();
  Release();
}

void StreamCall::OnFinished(bool, int) { Release(); }

void StreamCall::Release() {
  if (references_.fetch_sub(1, std::memory_order_acq_rel) > 1) return;
  method_->Unlink(this);
  model.reset();
  request_.Clear();
  loop_->Ended(method_, this);
}

}  // namespace hilomoe
