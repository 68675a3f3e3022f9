// What a comparison found: means over seeds, and the judged arm's differences from the controls.
#ifndef HILOMOE_TOOLS_TRAIN_COMPARISON_RESULT_H_
#define HILOMOE_TOOLS_TRAIN_COMPARISON_RESULT_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tools/common/statistics.h"
#include "tools/train/bootstrap.h"
#include "tools/train/comparison_choice.h"
#include "tools/train/comparison_curves.h"
#include "tools/train/comparison_plan.h"
#include "tools/train/comparison_runs.h"

namespace hilomoe {

using MetricSamples = std::array<Sample, kTestMetrics>;  // by TestMetric; n = 0: has no value

struct ArmResult {
  std::optional<size_t> trial;  // the chosen one
  MetricSamples test, valid;    // over the seeds of the chosen trial
  Sample seconds;               // of training, of runs that were never interrupted
  uint64_t flops = 0;           // a flat row, of the chosen trial
  std::optional<uint64_t> parameters;
  size_t failed = 0;  // runs of the chosen trial
};

enum class Verdict { kBetter, kWorse, kUndecided };

struct ArmDifference {
  size_t control = 0;
  TestMetric metric = TestMetric::kAuc;
  Difference over_seeds;              // judged - control
  bool paired = false;                // by seed: both have test metrics of the same seeds
  std::optional<Interval> over_rows;  // bootstrap
  size_t undefined_resamples = 0;     // left out
  // Decided when both intervals are there and on one side of 0.
  Verdict verdict = Verdict::kUndecided;
};

// Two curves of arms that are not controls and arms that are, in one metric (never logloss).
struct CurvePair {
  TestMetric metric;
  std::vector<size_t> arms, controls;  // of the plan, by ascending FLOPs
  std::vector<CurveGap> gaps;          // of `arms`
  size_t seeds = 0;                    // that every arm of both has been tested with
};

struct ComparisonResult {
  std::vector<ArmResult> arms;             // of the plan
  std::vector<ArmDifference> differences;  // by control in the plan's order, then by metric
  std::vector<CurvePair> curves;
  size_t rows = 0, groups = 0;  // of test; 0 groups: not grouped
};

const char* MetricName(TestMetric metric);  // "auc"

absl::StatusOr<ComparisonResult> Analyse(const ComparisonPlan& plan, const ComparisonRuns& runs,
                                         const ComparisonChoice& choice, const TestRows& rows, int threads);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_COMPARISON_RESULT_H_
