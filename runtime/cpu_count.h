// How many threads this process may really run at once.
#ifndef HILOMOE_RUNTIME_CPU_COUNT_H_
#define HILOMOE_RUNTIME_CPU_COUNT_H_

namespace hilomoe {

// The smaller of the affinity mask's processors and the cgroup's CPU quota (v2 cpu.max, v1 cfs_quota, of this process's
// group and the groups above it), rounded up, at least 1. Never the host's cores: under a quota, more threads than
// that only get throttled.
int UsableCpuCount();

}  // namespace hilomoe

#endif  // HILOMOE_RUNTIME_CPU_COUNT_H_
