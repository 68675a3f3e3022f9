// What a thread's evaluation holds.
#ifndef HILOMOE_TOOLS_BENCH_WORKSPACE_MEMORY_H_
#define HILOMOE_TOOLS_BENCH_WORKSPACE_MEMORY_H_

#include "absl/status/statusor.h"
#include "tools/bench/bench_model.h"

namespace hilomoe::bench {

struct MemoryUse {
  double file_bytes = 0;       // of the model, as it is held
  double workspace_bytes = 0;  // of one thread after requests of 1,000 candidates, flat rows and compute-once
};

// As the allocator counts (0 where another one replaces glibc's); no other thread may allocate meanwhile.
absl::StatusOr<MemoryUse> MeasureMemory(BenchModel* model);

}  // namespace hilomoe::bench

#endif  // HILOMOE_TOOLS_BENCH_WORKSPACE_MEMORY_H_
