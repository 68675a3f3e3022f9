// The control groups that hold this process.
#ifndef HILOMOE_RUNTIME_CGROUP_H_
#define HILOMOE_RUNTIME_CGROUP_H_

#include <string>
#include <vector>

namespace hilomoe {

// The directories of this process's group and of all groups above it: those of the unified hierarchy (v2) and, where it
// is mounted, of `controller` (v1). Some may not exist: in a container the paths are often those of the host.
std::vector<std::string> CgroupDirectories(const std::string& controller);

}  // namespace hilomoe

#endif  // HILOMOE_RUNTIME_CGROUP_H_
