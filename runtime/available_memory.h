// How much memory this process may still take.
#ifndef HILOMOE_RUNTIME_AVAILABLE_MEMORY_H_
#define HILOMOE_RUNTIME_AVAILABLE_MEMORY_H_

#include <string>

namespace hilomoe {

// Bytes: the least of what the machine has available and of what the cgroups of this process leave. Page cache that can
// be dropped counts as free. Infinity when nothing is known.
double AvailableMemoryBytes();

// What the limit of one cgroup directory leaves (v2 memory.max, v1 memory.limit_in_bytes); infinity without a limit.
double CgroupMemoryLeft(const std::string& directory);

}  // namespace hilomoe

#endif  // HILOMOE_RUNTIME_AVAILABLE_MEMORY_H_
