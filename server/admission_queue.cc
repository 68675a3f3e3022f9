#include "server/admission_queue.h"

namespace hilomoe {

void AdmissionQueue::Queue::Append(Item* item) {
  item->next = nullptr;
  (last == nullptr ? first : last->next) = item;
  last = item;
}

AdmissionQueue::Item* AdmissionQueue::Queue::Take() {
  Item* item = first;
  first = item->next;
  if (first == nullptr) last = nullptr;
  return item;
}

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
    if (!item->patient && queued + item->candidates > max_queued_candidates_) return Decision::kRefused;
  } while (!state_.compare_exchange_weak(state, state + kOneWaiting, std::memory_order_release));
  (item->patient ? patient_ : urgent_).Append(item);
  if (!item->patient) queued_candidates_.store(queued + item->candidates, std::memory_order_relaxed);
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
  Item* item = (urgent_.first != nullptr ? urgent_ : patient_).Take();
  state_.fetch_sub(kOneWaiting, std::memory_order_acquire);
  if (!item->patient) {
    queued_candidates_.store(queued_candidates_.load(std::memory_order_relaxed) - item->candidates,
                             std::memory_order_relaxed);
  }
  return item;
}

}  // namespace hilomoe
