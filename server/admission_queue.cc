#include "server/admission_queue.h"

namespace hilomoe {

bool AdmissionQueue::TryRun(uint64_t* state) {
  while (Running(*state) < max_running_) {
    if (state_.compare_exchange_weak(*state, *state + kOneRunning, std::memory_order_acquire)) return true;
  }
  return false;
}

AdmissionQueue::Decision AdmissionQueue::Admit(Item* item) {
  uint64_t state = state_.load(std::memory_order_relaxed);
  if (TryRun(&state)) return Decision::kRun;

  const std::lock_guard<std::mutex> lock(mutex_);
  const uint64_t queued = queued_candidates_.load(std::memory_order_relaxed);
  do {
    // A run may have ended meanwhile.
    if (TryRun(&state)) return Decision::kRun;
    if (queued + item->candidates > max_queued_candidates_) return Decision::kRefused;
  } while (!state_.compare_exchange_weak(state, state + kOneWaiting, std::memory_order_release));
  item->next = nullptr;
  (last_ == nullptr ? first_ : last_->next) = item;
  last_ = item;
  queued_candidates_.store(queued + item->candidates, std::memory_order_relaxed);
  return Decision::kQueued;
}

AdmissionQueue::Item* AdmissionQueue::Finish() {
  uint64_t state = state_.load(std::memory_order_relaxed);
  while (Waiting(state) == 0) {
    if (state_.compare_exchange_weak(state, state - kOneRunning, std::memory_order_release)) return nullptr;
  }

  const std::lock_guard<std::mutex> lock(mutex_);
  state = state_.load(std::memory_order_relaxed);
  // Another thread may have taken the last one before the lock was ours.
  while (Waiting(state) == 0) {
    if (state_.compare_exchange_weak(state, state - kOneRunning, std::memory_order_release)) return nullptr;
  }
  Item* item = first_;
  first_ = item->next;
  if (first_ == nullptr) last_ = nullptr;
  state_.fetch_sub(kOneWaiting, std::memory_order_acquire);
  queued_candidates_.store(queued_candidates_.load(std::memory_order_relaxed) - item->candidates,
                           std::memory_order_relaxed);
  return item;
}

}  // namespace hilomoe
