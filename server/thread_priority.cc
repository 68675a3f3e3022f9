#include "server/thread_priority.h"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>

namespace hilomoe {

void LowerThreadPriority() {
  const sched_param parameters{};
  // On Linux both are of the calling thread.
  if (::sched_setscheduler(0, SCHED_IDLE, &parameters) != 0) ::setpriority(PRIO_PROCESS, 0, 19);
}

void ReduceThreadPriority() { ::setpriority(PRIO_PROCESS, 0, 10); }

void NameThread(const char* name) { ::pthread_setname_np(::pthread_self(), name); }

}  // namespace hilomoe
