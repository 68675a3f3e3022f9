// Who is evaluated now, who waits and who is refused.
//
// At most max_running items run at once. One that arrives while fewer run may run on the thread that brought it
// (leader/follower: an idle server hands nothing over); else it waits in one queue, first come first served, as long
// as at most max_queued_candidates candidates wait; else it is refused at once. Items that are patient wait in a
// second queue, from which one is taken when nobody waits in the first; whoever brings them bounds their number.
#ifndef HILOMOE_SERVER_ADMISSION_QUEUE_H_
#define HILOMOE_SERVER_ADMISSION_QUEUE_H_

#include <atomic>
#include <cstdint>
#include <mutex>

namespace hilomoe {

// Any thread. Takes a lock only when somebody waits or has to. Allocates nothing: items are linked through themselves.
class AdmissionQueue {
 public:
  // Derive from it. An item that waits belongs to the queue until Finish returns it.
  struct Item {
    uint32_t candidates = 0;  // its weight, at least 1
    bool patient = false;     // never refused, and behind all that are not
    Item* next = nullptr;     // the queue's
  };
  enum class Decision { kRun, kQueued, kRefused };

  AdmissionQueue(uint32_t max_running, uint64_t max_queued_candidates)
      : max_running_(max_running), max_queued_candidates_(max_queued_candidates) {}
  AdmissionQueue(const AdmissionQueue&) = delete;
  AdmissionQueue& operator=(const AdmissionQueue&) = delete;

  // kRun: the caller runs the item and calls Finish. kQueued: another thread will; the caller must not touch the item
  // any more. kRefused: nothing has happened.
  Decision Admit(Item* item);

  // One run has ended. The item to run next, on this thread, with another Finish after it; null when none waits.
  Item* Finish();

  uint32_t running() const { return Running(state_.load(std::memory_order_relaxed)); }
  // Of items that are not patient.
  uint64_t queued_candidates() const { return queued_candidates_.load(std::memory_order_relaxed); }
  uint32_t max_running() const { return max_running_; }
  uint64_t max_queued_candidates() const { return max_queued_candidates_; }

 private:
  struct Queue {
    void Append(Item* item);
    Item* Take();
    Item* first = nullptr;
    Item* last = nullptr;
  };

  // state_ holds both numbers, so that "the last one ends" and "one more waits" cannot miss each other. Somebody waits
  // only while max_running run. Waiting changes under mutex_, running without.
  static constexpr uint64_t kOneRunning = uint64_t{1} << 32;
  static constexpr uint64_t kOneWaiting = 1;
  static uint32_t Running(uint64_t state) { return static_cast<uint32_t>(state >> 32); }
  static uint32_t Waiting(uint64_t state) { return static_cast<uint32_t>(state); }

  // Changes `state` as long as fewer than max_running run.
  bool TryRun(uint64_t* state);

  const uint32_t max_running_;
  const uint64_t max_queued_candidates_;
  std::atomic<uint64_t> state_{0};
  std::mutex mutex_;
  Queue urgent_, patient_;                      // guarded by mutex_
  std::atomic<uint64_t> queued_candidates_{0};  // changes under mutex_
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_ADMISSION_QUEUE_H_
