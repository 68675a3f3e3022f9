#include "server/call_loop.h"

#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

namespace hilomoe {
namespace {

// Calls of a method that wait for clients. At the low mark more are made, so that a burst finds calls waiting; above
// the high mark an ended call is deleted, so that a burst's memory goes with it. Loads of up to the difference at once
// make and delete none.
constexpr int kPostedLow = 32;
constexpr int kPostedHigh = 256;

}  // namespace

// A call goes from one thread to another through gRPC's queue, which is not built with the thread sanitizer: it has to
// be told that what was done before handing a tag over comes before what is done after taking it.
void* CompletionTag::HandOver() {
#if defined(__SANITIZE_THREAD__)
  __tsan_release(this);
#endif
  return this;
}

CallLoop::CallLoop(std::unique_ptr<grpc::ServerCompletionQueue> queue, uint32_t evaluation_threads,
                   uint64_t max_queued_candidates)
    : queue_(std::move(queue)), admission_(evaluation_threads, max_queued_candidates), cost_(serving_threads()) {}

CallLoop::~CallLoop() {
  // gRPC wants a queue that is shut down and read to its end.
  queue_->Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (queue_->Next(&tag, &ok)) {
  }
}

absl::Status CallLoop::Start(absl::Span<RpcMethod* const> methods) {
  methods_.assign(methods.begin(), methods.end());
  absl::Status status;
  try {
    threads_.reserve(static_cast<size_t>(serving_threads()));
    for (int i = 0; i < serving_threads(); ++i) threads_.emplace_back([this, i] { Serve(i); });
  } catch (const std::system_error& error) {
    status = absl::ResourceExhaustedError(absl::StrCat("cannot start serving threads: ", error.what()));
  }
  if (!started()) return status;  // nobody would take what comes of calls
  for (RpcMethod* method : methods_) {
    for (int i = 0; i < kPostedLow; ++i) PostNew(method);
  }
  return status;
}

int CallLoop::CallsUnderWay() const {
  int posted = 0;
  for (const RpcMethod* method : methods_) posted += method->posted_.load();
  return rpcs_.load() - posted;
}

void CallLoop::WaitForCalls() {
  for (RpcMethod* method : methods_) method->EndCalls();
  for (int rpcs = rpcs_.load(); rpcs != 0; rpcs = rpcs_.load()) rpcs_.wait(rpcs);
}

void CallLoop::Stop() {
  WaitForCalls();
  queue_->Shutdown();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

bool CallLoop::Admit(Rpc* rpc, int thread) {
  switch (admission_.Admit(rpc)) {
    case AdmissionQueue::Decision::kRefused:
      return false;
    case AdmissionQueue::Decision::kQueued:
      return true;
    case AdmissionQueue::Decision::kRun:
      break;
  }
  for (AdmissionQueue::Item* item = rpc; item != nullptr; item = admission_.Finish()) {
    static_cast<Rpc*>(item)->Evaluate(thread);
  }
  return true;
}

double CallLoop::EstimateWaitNs() const {
  if (admission_.running() < admission_.max_running()) return 0;
  return static_cast<double>(admission_.queued_candidates()) * cost_.NsPerCandidate() / admission_.max_running();
}

void CallLoop::PostNew(RpcMethod* method) {
  rpcs_.fetch_add(1);
  method->posted_.fetch_add(1, std::memory_order_relaxed);
  method->New(this).release()->Post();
}

void CallLoop::Serve(int thread) {
  void* untyped = nullptr;
  bool ok = false;
  while (queue_->Next(&untyped, &ok)) {
#if defined(__SANITIZE_THREAD__)
    __tsan_acquire(untyped);
#endif
    static_cast<CompletionTag*>(untyped)->Complete(ok, thread);
  }
}

bool CallLoop::Arrived(RpcMethod* method, Rpc* rpc, bool ok) {
  const int posted = method->posted_.fetch_sub(1, std::memory_order_relaxed) - 1;
  if (!ok) {  // no further event will come
    Delete(rpc);
    return false;
  }
  if (posted < kPostedLow) PostNew(method);
  return true;
}

void CallLoop::Ended(RpcMethod* method, Rpc* rpc) {
  if (method->posted_.load(std::memory_order_relaxed) >= kPostedHigh) {
    Delete(rpc);
    return;
  }
  method->posted_.fetch_add(1, std::memory_order_relaxed);
  rpc->Post();
}

void CallLoop::Delete(Rpc* rpc) {
  delete rpc;
  if (rpcs_.fetch_sub(1) == 1) rpcs_.notify_all();
}

}  // namespace hilomoe
