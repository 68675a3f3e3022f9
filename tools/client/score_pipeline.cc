#include "tools/client/score_pipeline.h"

#include <algorithm>

#include "absl/random/distributions.h"
#include "tools/client/server_connection.h"

namespace hilomoe {

ScorePipeline::ScorePipeline(const std::shared_ptr<grpc::ChannelInterface>& channel, const Options& options)
    : options_(options),
      stub_(v1::ScoringService::NewStub(channel)),
      calls_(std::max<size_t>(options.max_in_flight, 1)),
      network_([this] { DriveNetwork(); }) {
  for (size_t i = 0; i < calls_.size(); ++i) calls_[i].slot = i;
}

ScorePipeline::~ScorePipeline() {
  {
    std::unique_lock lock(mutex_);
    stopping_ = true;
    for (Call& call : calls_) {
      if (call.state == State::kCalling) call.context->TryCancel();
      if (call.state == State::kBackingOff) call.alarm.Cancel();
    }
    call_ended_.wait(lock, [this] { return under_way_ == 0; });
  }
  queue_.Shutdown();
  network_.join();
}

ScorePipeline::Exchange* ScorePipeline::Next() { return &calls_[sent_ % calls_.size()]; }

void ScorePipeline::Send() {
  Call* const call = &calls_[sent_ % calls_.size()];
  ++sent_;
  call->attempts = 0;
  call->started = Clock::now();
  std::lock_guard lock(mutex_);
  ++under_way_;
  Start(call);
}

const ScorePipeline::Exchange* ScorePipeline::Poll() {
  if (received_ == sent_) return nullptr;
  Call* const call = &calls_[received_ % calls_.size()];
  std::lock_guard lock(mutex_);
  if (call->state != State::kEnded) return nullptr;
  call->state = State::kIdle;
  ++received_;
  return call;
}

const ScorePipeline::Exchange* ScorePipeline::Await() {
  if (received_ == sent_) return nullptr;
  Call* const call = &calls_[received_ % calls_.size()];
  std::unique_lock lock(mutex_);
  call_ended_.wait(lock, [call] { return call->state == State::kEnded; });
  call->state = State::kIdle;
  ++received_;
  return call;
}

void ScorePipeline::Start(Call* call) {
  call->state = State::kCalling;
  ++call->attempts;
  call->reader.reset();  // lives in the context's memory
  call->context.emplace();
  call->context->set_deadline(absl::ToChronoTime(absl::Now() + options_.deadline));
  call->reader = stub_->AsyncScore(&*call->context, call->request, &queue_);
  call->reader->Finish(&call->response, &call->grpc_status, call);
}

void ScorePipeline::DriveNetwork() {
  void* tag = nullptr;
  bool ok = false;
  while (queue_.Next(&tag, &ok)) {
    const Clock::time_point now = Clock::now();
    std::lock_guard lock(mutex_);
    HandleEvent(static_cast<Call*>(tag), now);
  }
}

// A call's attempt has ended, or its alarm has gone off or been cancelled.
void ScorePipeline::HandleEvent(Call* call, Clock::time_point now) {
  if (call->state == State::kBackingOff && !stopping_) {
    Start(call);
    return;
  }
  if (call->state == State::kCalling) {
    const grpc::StatusCode code = call->grpc_status.error_code();
    const bool transient = code == grpc::UNAVAILABLE || code == grpc::RESOURCE_EXHAUSTED;
    if (transient && call->attempts <= options_.retries && !stopping_) {
      call->state = State::kBackingOff;
      call->alarm.Set(&queue_, absl::ToChronoTime(absl::Now() + Backoff(call->attempts)), call);
      return;
    }
    call->status = FromGrpc(call->grpc_status);
    call->latency = now - call->started;
  }
  call->state = State::kEnded;
  --under_way_;
  call_ended_.notify_one();
}

absl::Duration ScorePipeline::Backoff(int attempts) {
  absl::Duration wait = options_.first_backoff;
  for (int i = 1; i < attempts && wait < options_.longest_backoff; ++i) wait *= 2;
  return std::min(wait, options_.longest_backoff) * absl::Uniform(random_, 0.5, 1.5);
}

}  // namespace hilomoe
