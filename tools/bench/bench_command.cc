#include "tools/bench/bench_command.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "tools/bench/report.h"
#include "tools/bench/run_cases.h"
#include "tools/bench/suite.h"
#include "tools/bench/workspace_memory.h"

ABSL_FLAG(std::string, filter, "", "regular expression over full names, as `list` prints them; limits are always run");
ABSL_FLAG(std::string, format, "text", "text or json");
ABSL_FLAG(int32_t, repetitions, 20, "of every benchmark, in random order over all of them");
ABSL_FLAG(double, min_time, 0.01, "seconds that a repetition of a warm benchmark takes at least");
ABSL_FLAG(int32_t, threads, 0, "threads of the benchmarks of several threads; 1: none of these; 0: 2 if there are");
ABSL_FLAG(int64_t, ids, 200'000, "ids of every feature of the bench model");
ABSL_FLAG(int64_t, memory_mib, 0, "what is read to measure memory; 0: four times the last cache, at least 256");
ABSL_FLAG(bool, smoke, false, "verify everything and run it once, on small tables; times mean nothing");

namespace hilomoe::bench {
namespace {

struct BenchOptions {
  SuiteOptions suite;
  RunOptions run;
  bool json = false;
};

absl::Status CheckRange(const char* flag, double value, double least, double most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--", flag, ": ", value, " is not between ", least, " and ", most));
}

absl::StatusOr<BenchOptions> OptionsFromFlags(const Machine& machine, const std::vector<std::string>& arguments) {
  if (!arguments.empty()) return absl::InvalidArgumentError(absl::StrCat("unexpected '", arguments[0], "'"));
  const std::string format = absl::GetFlag(FLAGS_format);
  if (format != "text" && format != "json") {
    return absl::InvalidArgumentError(absl::StrCat("--format: '", format, "' is neither text nor json"));
  }
  BenchOptions options;
  options.json = format == "json";
  options.run.filter = absl::GetFlag(FLAGS_filter);
  options.run.repetitions = absl::GetFlag(FLAGS_repetitions);
  options.run.min_time = absl::GetFlag(FLAGS_min_time);
  options.run.smoke = absl::GetFlag(FLAGS_smoke);
  options.suite.threads = absl::GetFlag(FLAGS_threads);
  const int64_t ids = absl::GetFlag(FLAGS_ids);
  int64_t memory_mib = absl::GetFlag(FLAGS_memory_mib);
  HILOMOE_RETURN_IF_ERROR(CheckRange("repetitions", options.run.repetitions, 1, 10'000));
  HILOMOE_RETURN_IF_ERROR(CheckRange("min_time", options.run.min_time, 1e-6, 100));
  HILOMOE_RETURN_IF_ERROR(CheckRange("threads", options.suite.threads, 0, 1024));
  HILOMOE_RETURN_IF_ERROR(CheckRange("ids", static_cast<double>(ids), 10, 5e6));
  HILOMOE_RETURN_IF_ERROR(CheckRange("memory_mib", static_cast<double>(memory_mib), 0, 65'536));
  if (memory_mib == 0) memory_mib = std::max<int64_t>(256, static_cast<int64_t>(machine.l3_bytes >> 18));
  if (options.suite.threads == 0) options.suite.threads = machine.cpus > 1 ? 2 : 1;
  options.suite.ids = static_cast<uint32_t>(options.run.smoke ? 1000 : ids);
  options.suite.memory_bytes = static_cast<size_t>(options.run.smoke ? 4 : memory_mib) << 20;
  return options;
}

absl::StatusOr<Job> PrepareRun(const std::vector<std::string>& arguments) {
  const Machine machine = DescribeMachine();
  HILOMOE_ASSIGN_OR_RETURN(BenchOptions options, OptionsFromFlags(machine, arguments));
  return Job([machine, options](std::FILE*) -> absl::Status {
    Suite suite{options.suite, machine, {}};
    const std::vector<Case> cases = AllCases(&suite);
    HILOMOE_ASSIGN_OR_RETURN(std::vector<Measurement> measurements, RunCases(cases, machine, options.run));
    HILOMOE_ASSIGN_OR_RETURN(BenchModel* const model, suite.models.Get({.ids = options.suite.ids}));
    HILOMOE_ASSIGN_OR_RETURN(const MemoryUse memory, MeasureMemory(model));
    const int repetitions = options.run.smoke ? 1 : options.run.repetitions;
    const Report report = MakeReport(machine, repetitions, memory, std::move(measurements));
    std::fputs((options.json ? ReportJson(report) : ReportText(report)).c_str(), stdout);
    return absl::OkStatus();
  });
}

absl::StatusOr<Job> PrepareList(const std::vector<std::string>& arguments) {
  const Machine machine = DescribeMachine();
  HILOMOE_ASSIGN_OR_RETURN(BenchOptions options, OptionsFromFlags(machine, arguments));
  return Job([machine, options](std::FILE*) -> absl::Status {
    Suite suite{options.suite, machine, {}};
    const std::vector<Case> cases = AllCases(&suite);
    HILOMOE_ASSIGN_OR_RETURN(const std::vector<const Case*> selected, SelectCases(cases, options.run.filter));
    for (const Case* const c : selected) std::puts(FullName(*c).c_str());
    return absl::OkStatus();
  });
}

}  // namespace

Command RunCommand() {
  return {.name = "run",
          .usage = "[flags]",
          .summary = "Measures the machine's limits, then what of them kernels, blocks and the predictor reach.",
          .flag_files = {__FILE__},
          .prepare = PrepareRun};
}

Command ListCommand() {
  return {.name = "list",
          .usage = "[flags]",
          .summary = "Prints the benchmarks' full names.",
          .flag_files = {__FILE__},
          .prepare = PrepareList};
}

}  // namespace hilomoe::bench
