#include "tools/train/parallel.h"

#include <signal.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace hilomoe {
namespace {

// A training step is some fifty Runs of 10 to 100 us each. A sleeping thread takes about as long to wake, so that two
// threads would be slower than one; so threads watch for about as long before they sleep.
constexpr int kLooks = 2000;

// Returns when `value` is no longer `old`, or sometimes before.
template <typename T>
void WaitWhile(const std::atomic<T>& value, T old) {
  for (int look = 0; look < kLooks; ++look) {
    if (value.load(std::memory_order_acquire) != old) return;
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    std::this_thread::yield();
#endif
  }
  value.wait(old, std::memory_order_acquire);
}

}  // namespace

struct Parallel::Shared {
  // What a round changes is written before `round` and read after it.
  alignas(64) std::atomic<uint32_t> round = 0;
  alignas(64) std::atomic<uint32_t> running = 0;
  bool stop = false;
  const std::function<void(int)>* function = nullptr;

  void Begin(uint32_t workers) {
    running.store(workers, std::memory_order_relaxed);
    round.fetch_add(1, std::memory_order_release);
    round.notify_all();
  }
};

Parallel::Parallel(int threads) : shared_(std::make_unique<Shared>()) {
  // Signals are the calling thread's business; a new thread inherits what is blocked.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  for (int t = 1; t < threads; ++t) {
    workers_.emplace_back([&s = *shared_, t] {
      for (uint32_t seen = 0;; ++seen) {
        while (s.round.load(std::memory_order_acquire) == seen) WaitWhile(s.round, seen);
        if (s.stop) return;
        (*s.function)(t);
        if (s.running.fetch_sub(1, std::memory_order_acq_rel) == 1) s.running.notify_one();
      }
    });
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Parallel::~Parallel() {
  shared_->stop = true;
  shared_->Begin(0);
  for (std::thread& worker : workers_) worker.join();
}

void Parallel::Run(const std::function<void(int)>& function) {
  Shared& s = *shared_;
  s.function = &function;
  s.Begin(static_cast<uint32_t>(workers_.size()));
  function(0);
  for (uint32_t left; (left = s.running.load(std::memory_order_acquire)) > 0;) WaitWhile(s.running, left);
}

std::pair<size_t, size_t> Parallel::Slice(size_t n, int thread, size_t grain) const {
  const size_t grains = (n + grain - 1) / grain;
  const size_t count = static_cast<size_t>(threads());
  const size_t t = static_cast<size_t>(thread);
  return {std::min(n, grains * t / count * grain), std::min(n, grains * (t + 1) / count * grain)};
}

}  // namespace hilomoe
