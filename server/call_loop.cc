#include "server/call_loop.h"

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

namespace hilomoe {
namespace {

// A call goes from one thread to another through gRPC's queue, which is not built with the thread sanitizer: it has to
// be told that what was done before handing a tag over comes before what is done after taking it.
void HandOver([[maybe_unused]] void* tag) {
#if defined(__SANITIZE_THREAD__)
  __tsan_release(tag);
#endif
}
void Take([[maybe_unused]] void* tag) {
#if defined(__SANITIZE_THREAD__)
  __tsan_acquire(tag);
#endif
}

// Calls of a method that wait for clients. At the low mark more are made, so that a burst finds calls waiting; above
// the high mark an ended call is deleted, so that a burst's memory goes with it. Loads of up to the difference at once
// make and delete none.
constexpr int kPostedLow = 32;
constexpr int kPostedHigh = 256;

}  // namespace

void AsyncCall::Post() {
  cancelled_.store(false, std::memory_order_relaxed);
  events_to_come_.store(2, std::memory_order_relaxed);
  responder_.reset();
  context_.emplace();
  responder_.emplace(&*context_);
  context_->AsyncNotifyWhenDone(&done_tag_);
  method_->posted_.fetch_add(1, std::memory_order_relaxed);
  HandOver(&arrived_tag_);
  HandOver(&done_tag_);
  method_->Request(&*context_, &request_, &*responder_, loop_->queue_.get(), &arrived_tag_);
}

void AsyncCall::Reply(const grpc::ByteBuffer& response) {
  HandOver(&finished_tag_);
  responder_->Finish(response, grpc::Status::OK, &finished_tag_);
}

void AsyncCall::Fail(const grpc::Status& status) {
  HandOver(&finished_tag_);
  responder_->FinishWithError(status, &finished_tag_);
}

CallLoop::CallLoop(std::unique_ptr<grpc::ServerCompletionQueue> queue, uint32_t evaluation_threads,
                   uint64_t max_queued_candidates)
    : queue_(std::move(queue)), admission_(evaluation_threads, max_queued_candidates) {}

CallLoop::~CallLoop() {
  // gRPC wants a queue that is shut down and read to its end.
  queue_->Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (queue_->Next(&tag, &ok)) {
  }
}

void CallLoop::Start(absl::Span<AsyncMethod* const> methods) {
  for (AsyncMethod* method : methods) {
    for (int i = 0; i < kPostedLow; ++i) PostNew(method);
  }
  for (int i = 0; i < serving_threads(); ++i) threads_.emplace_back([this, i] { Serve(i); });
}

void CallLoop::WaitForCalls() {
  for (int calls = calls_.load(); calls != 0; calls = calls_.load()) calls_.wait(calls);
}

void CallLoop::Stop() {
  WaitForCalls();
  queue_->Shutdown();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

bool CallLoop::Admit(AsyncCall* call, int thread) {
  switch (admission_.Admit(call)) {
    case AdmissionQueue::Decision::kRefused:
      return false;
    case AdmissionQueue::Decision::kQueued:
      return true;
    case AdmissionQueue::Decision::kRun:
      break;
  }
  for (AdmissionQueue::Item* item = call; item != nullptr; item = admission_.Finish()) {
    auto* next = static_cast<AsyncCall*>(item);
    next->method()->Evaluate(next, thread);
  }
  return true;
}

void CallLoop::PostNew(AsyncMethod* method) {
  calls_.fetch_add(1);
  (new AsyncCall(this, method))->Post();
}

void CallLoop::Serve(int thread) {
  void* untyped = nullptr;
  bool ok = false;
  while (queue_->Next(&untyped, &ok)) {
    Take(untyped);
    const auto* tag = static_cast<const AsyncCall::Tag*>(untyped);
    AsyncCall* call = tag->call;
    switch (tag->event) {
      case AsyncCall::Event::kArrived:
        HandleArrival(call, ok, thread);
        break;
      case AsyncCall::Event::kDone:
        if (call->context_->IsCancelled()) call->cancelled_.store(true, std::memory_order_relaxed);
        Release(call);
        break;
      case AsyncCall::Event::kFinished:
        Release(call);
        break;
    }
  }
}

void CallLoop::HandleArrival(AsyncCall* call, bool ok, int thread) {
  AsyncMethod* method = call->method();
  const int posted = method->posted_.fetch_sub(1, std::memory_order_relaxed) - 1;
  if (!ok) {  // the server shuts down; no further event will come
    Delete(call);
    return;
  }
  call->arrived_ = AsyncCall::Clock::now();
  if (posted < kPostedLow) PostNew(method);
  method->Arrive(call, thread);
}

void CallLoop::Release(AsyncCall* call) {
  if (call->events_to_come_.fetch_sub(1, std::memory_order_acq_rel) > 1) return;
  call->model.reset();
  call->request_.Clear();
  if (call->method()->posted_.load(std::memory_order_relaxed) >= kPostedHigh) {
    Delete(call);
  } else {
    call->Post();
  }
}

void CallLoop::Delete(AsyncCall* call) {
  delete call;
  if (calls_.fetch_sub(1) == 1) calls_.notify_all();
}

}  // namespace hilomoe
