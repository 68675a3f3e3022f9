// One thing that is timed: what it does, what it must give, and what it costs at least.
#ifndef HILOMOE_TOOLS_BENCH_BENCHMARK_CASE_H_
#define HILOMOE_TOOLS_BENCH_BENCHMARK_CASE_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace hilomoe::bench {

// What one run must do whatever the code: the bounds of the roofline. 0 = nothing of the kind.
struct Work {
  double flops = 0;                   // a multiply-add is 2
  std::string precision = "float32";  // of these, as PrecisionName
  double bytes = 0;                   // read
  double working_set = 0;             // from how much memory; 0: `bytes`
  double in_turn = 0;                 // from how much all runs in turn, which decides the cache level; 0: working_set
  double random_reads = 0;            // of 64 bytes, each from somewhere else in memory
};

enum class Cache {
  kWarm,     // the same operands, run after run
  kFlushed,  // every run finds its operands, its code and its page table in memory
};

// The operands of one thread.
struct Operands {
  std::function<absl::Status()> verify;  // runs once and says what is wrong with the result
  std::function<void()> run;
};

struct Case {
  std::string group;            // "kernels"
  std::string name;             // "route_dense, 64 rows"
  std::string instruction_set;  // that runs: the name of its table of kernels
  Work work;
  Cache cache = Cache::kWarm;
  int threads = 1;                         // each with operands of its own, all at once
  bool together = false;                   // but the threads share each run, and its operands are those of thread 0
  std::vector<std::string> compared_with;  // full names of cases
  std::function<absl::StatusOr<Operands>(int thread)> prepare;
};

// "kernels/route_dense, 64 rows/avx512/flushed/2 threads"; the last two only where they apply, with together
// "2 threads together". Unique.
std::string FullName(const Case& c);

}  // namespace hilomoe::bench

#endif  // HILOMOE_TOOLS_BENCH_BENCHMARK_CASE_H_
