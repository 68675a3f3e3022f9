// What was measured, for people and for programs.
#ifndef HILOMOE_TOOLS_BENCH_REPORT_H_
#define HILOMOE_TOOLS_BENCH_REPORT_H_

#include <optional>
#include <string>
#include <vector>

#include "tools/bench/machine/machine.h"
#include "tools/bench/roofline.h"
#include "tools/bench/run_cases.h"
#include "tools/bench/workspace_memory.h"

namespace hilomoe::bench {

// One case beside another of the same run.
struct Comparison {
  const Case* benchmark = nullptr;
  const Case* with = nullptr;
  double times_as_fast = 0;        // median over the repetitions of with's time / the case's
  double low = 0, high = 0;        // its quartiles
  std::optional<double> by_flops;  // what with's FLOPs / the case's FLOPs would give
};

struct Report {
  Machine machine;
  std::string kernels;  // the best table of them here
  int repetitions = 0;
  MemoryUse memory;
  std::vector<Measurement> measurements;
  std::vector<std::optional<Bound>> bounds;  // of each measurement
  std::vector<Comparison> comparisons;
};

Report MakeReport(const Machine& machine, int repetitions, const MemoryUse& memory,
                  std::vector<Measurement> measurements);

// Tables, one a group, and the comparisons.
std::string ReportText(const Report& report);
// {"machine", "benchmarks": [...], "comparisons": [...]}; the fields are those of the tables, times in seconds.
std::string ReportJson(const Report& report);

}  // namespace hilomoe::bench

#endif  // HILOMOE_TOOLS_BENCH_REPORT_H_
