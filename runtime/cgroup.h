// The control groups that hold this process.
#ifndef HILOMOE_RUNTIME_CGROUP_H_
#define HILOMOE_RUNTIME_CGROUP_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace hilomoe {

// The directories of this process's group and of all groups above it: those of the unified hierarchy (v2) and, where it
// is mounted, of `controller` (v1). Some may not exist: in a container the paths are often those of the host.
std::vector<std::string> CgroupDirectories(const std::string& controller);

// What CPU quotas have done, added up over the groups.
struct CpuThrottling {
  uint64_t periods = 0;
  uint64_t throttled_periods = 0;
  double throttled_seconds = 0;  // of the group's run queues on every processor, so more than have passed
};

// From the cpu.stat files (v2 and v1) in `directories`; nothing where none of them counts periods.
std::optional<CpuThrottling> ReadCpuThrottling(const std::vector<std::string>& directories);

}  // namespace hilomoe

#endif  // HILOMOE_RUNTIME_CGROUP_H_
