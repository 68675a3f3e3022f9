// Runs cases under Google Benchmark.
#ifndef HILOMOE_TOOLS_BENCH_RUN_CASES_H_
#define HILOMOE_TOOLS_BENCH_RUN_CASES_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tools/bench/benchmark_case.h"
#include "tools/bench/machine/machine.h"

namespace hilomoe::bench {

struct RunOptions {
  std::string filter;      // regular expression over full names; empty: all. The group "limits" is always run
  int repetitions = 20;    // in random order over all cases
  double min_time = 0.01;  // seconds that one repetition of a warm case takes at least
  bool smoke = false;      // one run of each
};

struct Measurement {
  const Case* benchmark = nullptr;
  std::vector<double>
      seconds;  // per repetition: of one run, threads working side by side counted as one another's help
};

// Those of `cases` that a run with the filter measures, in their order. INVALID_ARGUMENT: it is wrong or leaves
// nothing.
absl::StatusOr<std::vector<const Case*>> SelectCases(const std::vector<Case>& cases, const std::string& filter);

// In the order of `cases`, less those that the filter leaves out. DATA_LOSS names the cases whose verification failed;
// these are never timed. INVALID_ARGUMENT as SelectCases. One call at a time.
absl::StatusOr<std::vector<Measurement>> RunCases(const std::vector<Case>& cases, const Machine& machine,
                                                  const RunOptions& options);

}  // namespace hilomoe::bench

#endif  // HILOMOE_TOOLS_BENCH_RUN_CASES_H_
