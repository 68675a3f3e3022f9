// The number of threads that may run at once follows the affinity mask.
#include "runtime/cpu_count.h"

#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <thread>

#include "gtest/gtest.h"

namespace hilomoe {
namespace {

// What UsableCpuCount says in a child process that may run on the first `processors` of our processors.
int CountWith(int processors) {
  const pid_t child = ::fork();
  if (child == 0) {
    cpu_set_t all, some;
    CPU_ZERO(&all);
    CPU_ZERO(&some);
    if (::sched_getaffinity(0, sizeof(all), &all) != 0) ::_exit(200);
    for (int i = 0; i < CPU_SETSIZE && processors > 0; ++i) {
      if (!CPU_ISSET(i, &all)) continue;
      CPU_SET(i, &some);
      --processors;
    }
    if (processors > 0 || ::sched_setaffinity(0, sizeof(some), &some) != 0) ::_exit(201);
    ::_exit(UsableCpuCount());
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  return WEXITSTATUS(status);
}

int Affinity() {
  cpu_set_t set;
  CPU_ZERO(&set);
  EXPECT_EQ(::sched_getaffinity(0, sizeof(set), &set), 0);
  return CPU_COUNT(&set);
}

TEST(UsableCpuCountTest, IsWithinTheAffinityMask) {
  EXPECT_GE(UsableCpuCount(), 1);
  EXPECT_LE(UsableCpuCount(), Affinity());
  EXPECT_LE(UsableCpuCount(), static_cast<int>(std::thread::hardware_concurrency()));
}

TEST(UsableCpuCountTest, FollowsASmallerMask) {
  const int usable = UsableCpuCount();  // less than the mask where a quota is
  for (int processors = 1; processors <= std::min(Affinity(), 4); ++processors) {
    EXPECT_EQ(CountWith(processors), std::min(processors, usable)) << processors;
  }
  EXPECT_EQ(CountWith(1), 1);
}

}  // namespace
}  // namespace hilomoe
