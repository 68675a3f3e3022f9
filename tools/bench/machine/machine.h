// What the machine is: its name, its caches, the processors that may be used.
#ifndef HILOMOE_TOOLS_BENCH_MACHINE_MACHINE_H_
#define HILOMOE_TOOLS_BENCH_MACHINE_MACHINE_H_

#include <cstddef>
#include <string>

namespace hilomoe::bench {

struct Machine {
  std::string cpu;                                  // as /proc/cpuinfo names it
  int cpus = 1;                                     // that the cgroup and the affinity mask allow
  size_t l1_bytes = 0, l2_bytes = 0, l3_bytes = 0;  // data caches; of a core, of a core, shared
};

Machine DescribeMachine();

// Reads more memory than all caches hold, so that nothing of what was in them is left. Any thread; 5 to 10 ms.
void FlushCaches(const Machine& machine);

}  // namespace hilomoe::bench

#endif  // HILOMOE_TOOLS_BENCH_MACHINE_MACHINE_H_
