#include "tools/bench/run_cases.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <regex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/status_macros.h"

namespace hilomoe::bench {

std::string FullName(const Case& c) {
  return absl::StrCat(c.group, "/", c.name, "/", c.instruction_set, c.cache == Cache::kFlushed ? "/flushed" : "",
                      c.threads > 1 ? absl::StrCat("/", c.threads, c.together ? " threads together" : " threads") : "");
}

namespace {

// A flushed run costs milliseconds of flushing, so their number is fixed.
constexpr int kFlushedRuns = 5;

// Threads of Google Benchmark's.
int CallingThreads(const Case& c) { return c.together ? 1 : c.threads; }

class CaseRunner {
 public:
  CaseRunner(const Case& c, const Machine& machine) : case_(c), machine_(machine) {}

  void Run(benchmark::State& state) {
    std::call_once(prepared_, [this] { status_ = Prepare(); });
    if (!status_.ok()) {
      state.SkipWithError("wrong");
      return;
    }
    const std::function<void()>& run = operands_[static_cast<size_t>(state.thread_index())].run;
    if (case_.cache == Cache::kWarm) {
      run();
      for (auto unused : state) run();
      return;
    }
    for (auto unused : state) {
      FlushCaches(machine_);
      const auto start = std::chrono::steady_clock::now();
      run();
      state.SetIterationTime(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
  }
  const absl::Status& status() const { return status_; }

 private:
  // Verified before anything is timed, the operands of every thread.
  absl::Status Prepare() {
    for (int thread = 0; thread < CallingThreads(case_); ++thread) {
      HILOMOE_ASSIGN_OR_RETURN(Operands operands, case_.prepare(thread));
      HILOMOE_RETURN_IF_ERROR(operands.verify());
      operands_.push_back(std::move(operands));
    }
    return absl::OkStatus();
  }

  const Case& case_;
  const Machine& machine_;
  std::once_flag prepared_;
  absl::Status status_;
  std::vector<Operands> operands_;
};

// Keeps the repetitions' times by name.
class Collector : public benchmark::BenchmarkReporter {
 public:
  bool ReportContext(const Context&) override { return true; }
  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& run : runs) {
      if (run.run_type != Run::RT_Iteration || run.error_occurred || run.iterations == 0) continue;
      seconds_[run.run_name.function_name].push_back(run.real_accumulated_time / static_cast<double>(run.iterations));
    }
  }
  std::vector<double> Seconds(const std::string& name) const {
    const auto found = seconds_.find(name);
    return found != seconds_.end() ? found->second : std::vector<double>();
  }

 private:
  std::map<std::string, std::vector<double>> seconds_;
};

void Register(const Case& c, const RunOptions& options, CaseRunner* runner) {
  benchmark::internal::Benchmark* registered =
      benchmark::RegisterBenchmark(FullName(c).c_str(), [runner](benchmark::State& state) { runner->Run(state); });
  registered->Threads(CallingThreads(c));
  if (c.cache == Cache::kFlushed) {
    registered->UseManualTime();
  } else {
    registered->UseRealTime();
  }
  if (options.smoke) {
    registered->Iterations(1);
  } else if (c.cache == Cache::kFlushed) {
    registered->Iterations(kFlushedRuns);
  }
}

void InitializeGoogleBenchmark(const RunOptions& options) {
  std::vector<std::string> arguments = {
      "hilomoe-bench",
      absl::StrCat("--benchmark_repetitions=", options.smoke ? 1 : options.repetitions),
      absl::StrCat("--benchmark_min_time=", options.min_time),
      "--benchmark_enable_random_interleaving=true",
  };
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  int argc = static_cast<int>(argv.size());
  benchmark::Initialize(&argc, argv.data());
}

}  // namespace

absl::StatusOr<std::vector<const Case*>> SelectCases(const std::vector<Case>& cases, const std::string& filter) {
  std::regex expression;
  try {
    expression = filter;
  } catch (const std::regex_error& error) {
    return absl::InvalidArgumentError(absl::StrCat("filter '", filter, "': ", error.what()));
  }
  std::vector<const Case*> selected;
  bool matched = false;
  for (const Case& c : cases) {
    const bool matches = std::regex_search(FullName(c), expression);
    matched |= matches;
    if (matches || c.group == "limits") selected.push_back(&c);
  }
  if (!matched) return absl::InvalidArgumentError(absl::StrCat("filter '", filter, "' leaves no benchmark"));
  return selected;
}

absl::StatusOr<std::vector<Measurement>> RunCases(const std::vector<Case>& cases, const Machine& machine,
                                                  const RunOptions& options) {
  HILOMOE_ASSIGN_OR_RETURN(const std::vector<const Case*> selected, SelectCases(cases, options.filter));
  InitializeGoogleBenchmark(options);
  std::map<std::string, std::unique_ptr<CaseRunner>> runners;
  for (const Case* const selected_case : selected) {
    const Case& c = *selected_case;
    auto [runner, added] = runners.emplace(FullName(c), std::make_unique<CaseRunner>(c, machine));
    if (!added) return absl::InternalError(absl::StrCat("two cases are named '", runner->first, "'"));
    Register(c, options, runner->second.get());
  }
  Collector collector;
  benchmark::RunSpecifiedBenchmarks(&collector, ".");
  benchmark::ClearRegisteredBenchmarks();
  std::string wrong;
  std::vector<Measurement> measurements;
  for (const Case* const c : selected) {
    const std::string name = FullName(*c);
    if (const absl::Status& status = runners.at(name)->status(); !status.ok()) {
      absl::StrAppend(&wrong, wrong.empty() ? "" : "\n", name, ": ", status.message());
    }
    Measurement measurement{c, collector.Seconds(name)};
    if (!measurement.seconds.empty()) measurements.push_back(std::move(measurement));
  }
  if (!wrong.empty()) return absl::DataLossError(wrong);
  return measurements;
}

}  // namespace hilomoe::bench
