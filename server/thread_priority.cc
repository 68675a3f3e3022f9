#include "server/thread_priority.h"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>

#include <ctime>
#include <thread>

namespace hilomoe {
namespace {

constexpr std::chrono::microseconds kLeastPiece{200};
constexpr int kPauseOfPiece = 3;

}  // namespace

void LowerThreadPriority() {
  const sched_param parameters{};
  // On Linux both are of the calling thread.
  if (::sched_setscheduler(0, SCHED_IDLE, &parameters) != 0) ::setpriority(PRIO_PROCESS, 0, 19);
}

void ReduceThreadPriority() { ::setpriority(PRIO_PROCESS, 0, 10); }

void WorkPacer::Pause() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  const std::chrono::nanoseconds now = std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
  if (paused_at_ < std::chrono::nanoseconds(0)) paused_at_ = now;
  if (now - paused_at_ < kLeastPiece) return;
  std::this_thread::sleep_for(kPauseOfPiece * (now - paused_at_));
  paused_at_ = now;
}

void NameThread(const char* name) { ::pthread_setname_np(::pthread_self(), name); }

}  // namespace hilomoe
