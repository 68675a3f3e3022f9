#include "tools/train/parallel.h"

#include <signal.h>

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace hilomoe {

struct Parallel::Shared {
  std::mutex mutex;
  std::condition_variable start, done;
  uint64_t round = 0;
  int running = 0;
  bool stop = false;
  const std::function<void(int)>* function = nullptr;
};

Parallel::Parallel(int threads) : shared_(std::make_unique<Shared>()) {
  // Signals are the calling thread's business; a new thread inherits what is blocked.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  for (int t = 1; t < threads; ++t) {
    workers_.emplace_back([this, t] {
      Shared& s = *shared_;
      uint64_t seen = 0;
      std::unique_lock lock(s.mutex);
      while (true) {
        s.start.wait(lock, [&] { return s.stop || s.round != seen; });
        if (s.stop) return;
        seen = s.round;
        lock.unlock();
        (*s.function)(t);
        lock.lock();
        if (--s.running == 0) s.done.notify_one();
      }
    });
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Parallel::~Parallel() {
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->stop = true;
  }
  shared_->start.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void Parallel::Run(const std::function<void(int)>& function) {
  Shared& s = *shared_;
  {
    const std::lock_guard lock(s.mutex);
    s.function = &function;
    s.running = static_cast<int>(workers_.size());
    ++s.round;
  }
  s.start.notify_all();
  function(0);
  std::unique_lock lock(s.mutex);
  s.done.wait(lock, [&] { return s.running == 0; });
}

std::pair<size_t, size_t> Parallel::Slice(size_t n, int thread, size_t grain) const {
  const size_t grains = (n + grain - 1) / grain;
  const size_t count = static_cast<size_t>(threads());
  const size_t t = static_cast<size_t>(thread);
  return {std::min(n, grains * t / count * grain), std::min(n, grains * (t + 1) / count * grain)};
}

}  // namespace hilomoe
