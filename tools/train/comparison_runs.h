// The runs of a comparison on disk, one directory each:
//   <output>/<arm>/<trial>/<seed>/config.textproto    what is trained: the trial's config with the seed, without test
//   logs
//                                 checkpoint/, resume/ as Train writes them
//                                 log.txt             what the training said
//                                 run.json            attempts, and why it failed
//                                 test.safetensors    scores of the test rows, with labels and groups; of chosen trials
#ifndef HILOMOE_TOOLS_TRAIN_COMPARISON_RUNS_H_
#define HILOMOE_TOOLS_TRAIN_COMPARISON_RUNS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tools/common/metrics.h"
#include "tools/train/comparison_plan.h"

namespace hilomoe {

struct ComparisonRun {
  enum class State { kPending, kRunning, kComplete, kFailed };

  size_t arm = 0, trial = 0, seed = 0;  // indices into the plan
  std::string directory;
  State state = State::kPending;
  int attempts = 0;
  bool resumed = false;  // the last attempt went on from a saved state
  std::string error;     // of a failed one

  // Of a complete one.
  std::map<std::string, double> metrics;  // of the checkpoint: "valid.auc", "train.seconds"
  uint64_t parameters = 0;                // all numbers in the checkpoint's weights

  // Of a chosen trial's, after the choice was frozen.
  std::optional<BinaryMetrics> test;
  std::vector<float> scores;
  std::string test_error;

  std::string Path(const char* name) const { return directory + "/" + name; }
  bool complete() const { return state == State::kComplete; }
  // The monitored number on the validation rows, larger = better; nullopt when the run is not complete.
  std::optional<double> Monitored(v1::TrainingConfig::Monitor monitor) const;
};

class ComparisonRuns {
 public:
  // Finds out how far every run is. Errors: FAILED_PRECONDITION when a directory holds a run of another config. Failed
  // runs are taken as pending when retry_failed.
  static absl::StatusOr<ComparisonRuns> Open(const ComparisonPlan& plan, const std::string& output, bool retry_failed);

  ComparisonRun& Get(size_t arm, size_t trial, size_t seed);
  const ComparisonRun& Get(size_t arm, size_t trial, size_t seed) const;
  std::vector<ComparisonRun>& all() { return runs_; }
  const std::vector<ComparisonRun>& all() const { return runs_; }

  // Mean monitored value over the first plan.selection_seeds seeds; nullopt when one of them is not complete.
  std::optional<double> SelectionMean(size_t arm, size_t trial) const;
  // The trial with the largest SelectionMean, the first of equals. nullopt while a selection run is under way or to be
  // started, and when no trial has all of them.
  std::optional<size_t> Choice(size_t arm) const;
  bool SelectionOver(size_t arm) const;

 private:
  explicit ComparisonRuns(const ComparisonPlan& plan) : plan_(&plan) {}

  const ComparisonPlan* plan_;
  std::vector<ComparisonRun> runs_;
  std::vector<size_t> first_;  // per arm: its first run; then trial by trial, seed by seed
};

// Before a start: config and run.json are written, attempts counted. Sets *resume when there is a state to go on from.
absl::Status BeginRun(const ComparisonPlan& plan, ComparisonRun* run, bool* resume);
// After an end: reads what a complete run left, or notes why it failed.
absl::Status EndRun(const absl::Status& ended, ComparisonRun* run);

struct TestRows {
  std::vector<uint8_t> labels;
  std::vector<uint64_t> groups;
};
// Reads test.safetensors: scores into the run, labels and groups into *rows or, when it has some, compares them. Then
// computes run->test. What is wrong with this run alone stands in run->test_error; an error says that test rows differ.
absl::Status ReadTest(ComparisonRun* run, TestRows* rows);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_COMPARISON_RUNS_H_
