#include "tools/train/comparison_result.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "model/flops.h"
#include "model/model_spec.h"
#include "model/status_macros.h"

namespace hilomoe {
namespace {

constexpr std::array<TestMetric, kTestMetrics> kMetrics = {TestMetric::kAuc, TestMetric::kGauc, TestMetric::kLogloss};

std::optional<double> Value(const BinaryMetrics& metrics, TestMetric metric) {
  switch (metric) {
    case TestMetric::kAuc:
      return metrics.auc;
    case TestMetric::kGauc:
      return metrics.grouped.gauc;
    default:
      return metrics.logloss;
  }
}

// The chosen trial's runs that have test metrics.
std::vector<const ComparisonRun*> TestedRuns(const ComparisonPlan& plan, const ComparisonRuns& runs,
                                             const ComparisonChoice& choice, size_t arm) {
  std::vector<const ComparisonRun*> tested;
  for (size_t s = 0; s < plan.seeds.size() && choice.arms[arm].trial.has_value(); ++s) {
    const ComparisonRun& run = runs.Get(arm, *choice.arms[arm].trial, s);
    if (run.test.has_value()) tested.push_back(&run);
  }
  return tested;
}

std::vector<double> Values(const std::vector<const ComparisonRun*>& runs, TestMetric metric) {
  std::vector<double> values;
  for (const ComparisonRun* run : runs) {
    if (const std::optional<double> value = Value(*run->test, metric)) values.push_back(*value);
  }
  return values;
}

absl::StatusOr<ArmResult> SummariseArm(const ComparisonPlan& plan, const ComparisonRuns& runs,
                                       const ComparisonChoice& choice, size_t arm) {
  ArmResult result;
  result.trial = choice.arms[arm].trial;
  const ComparisonTrial& trial = plan.arms[arm].trials[result.trial.value_or(0)];
  HILOMOE_ASSIGN_OR_RETURN(const ModelSpec spec, ModelSpec::Create(trial.config.model()));
  result.flops = CountFlops(spec).row;
  if (!result.trial.has_value()) return result;
  std::vector<double> seconds;
  std::array<std::vector<double>, kTestMetrics> valid;
  for (size_t s = 0; s < plan.seeds.size(); ++s) {
    const ComparisonRun& run = runs.Get(arm, *result.trial, s);
    result.failed += run.state == ComparisonRun::State::kFailed || !run.test_error.empty();
    if (!run.complete()) continue;
    result.parameters = run.parameters;
    if (!run.resumed) seconds.push_back(run.metrics.at("train.seconds"));
    for (const TestMetric metric : kMetrics) {
      const auto found = run.metrics.find(absl::StrCat("valid.", MetricName(metric)));
      if (found != run.metrics.end()) valid[static_cast<size_t>(metric)].push_back(found->second);
    }
  }
  result.seconds = Summarise(seconds);
  const std::vector<const ComparisonRun*> tested = TestedRuns(plan, runs, choice, arm);
  for (size_t m = 0; m < kTestMetrics; ++m) {
    result.valid[m] = Summarise(valid[m]);
    result.test[m] = Summarise(Values(tested, kMetrics[m]));
  }
  return result;
}

Verdict Judge(const ArmDifference& difference) {
  if (!difference.over_seeds.interval.has_value() || !difference.over_rows.has_value()) return Verdict::kUndecided;
  const Interval &a = *difference.over_seeds.interval, &b = *difference.over_rows;
  const bool larger = a.low > 0 && b.low > 0, smaller = a.high < 0 && b.high < 0;
  if (!larger && !smaller) return Verdict::kUndecided;
  return larger == (difference.metric != TestMetric::kLogloss) ? Verdict::kBetter : Verdict::kWorse;
}

// Of the arms, those of this curve that have a result, by ascending FLOPs.
std::vector<size_t> SizesOf(const ComparisonPlan& plan, const ComparisonResult& result, const std::string& curve) {
  std::vector<size_t> sizes;
  for (size_t a = 0; a < plan.arms.size(); ++a) {
    if (plan.arms[a].curve == curve && result.arms[a].test[0].n > 0) sizes.push_back(a);
  }
  const auto flops = [&](size_t a) { return result.arms[a].flops; };
  std::stable_sort(sizes.begin(), sizes.end(), [&](size_t x, size_t y) { return flops(x) < flops(y); });
  return sizes;
}

std::optional<CurvePair> HoldCurves(const ComparisonPlan& plan, const ComparisonRuns& runs,
                                    const ComparisonChoice& choice, const ComparisonResult& result, TestMetric metric,
                                    const std::string& judged, const std::string& control) {
  CurvePair pair{.metric = metric,
                 .arms = SizesOf(plan, result, judged),
                 .controls = SizesOf(plan, result, control),
                 .gaps = {},
                 .seeds = 0};
  // A curve has one value at a place: of controls of equal FLOPs, the first.
  const auto same_flops = [&](size_t x, size_t y) { return result.arms[x].flops == result.arms[y].flops; };
  pair.controls.erase(std::unique(pair.controls.begin(), pair.controls.end(), same_flops), pair.controls.end());
  if (pair.arms.empty() || pair.controls.size() < 2) return std::nullopt;
  std::vector<CurveSize> sizes[2];
  const auto value = [&](size_t arm, size_t seed) -> std::optional<double> {
    const ComparisonRun& run = runs.Get(arm, *choice.arms[arm].trial, seed);
    return run.test.has_value() ? Value(*run.test, metric) : std::nullopt;
  };
  const auto has_value = [&](const std::vector<size_t>& arms, size_t seed) {
    return std::all_of(arms.begin(), arms.end(), [&](size_t arm) { return value(arm, seed).has_value(); });
  };
  for (int side = 0; side < 2; ++side) {
    for (const size_t arm : side == 0 ? pair.arms : pair.controls) {
      CurveSize& size = sizes[side].emplace_back();
      size.flops = static_cast<double>(result.arms[arm].flops);
      for (size_t s = 0; s < plan.seeds.size(); ++s) {
        if (has_value(pair.arms, s) && has_value(pair.controls, s)) size.values.push_back(*value(arm, s));
      }
    }
  }
  pair.seeds = sizes[0].front().values.size();
  if (pair.seeds == 0) return std::nullopt;
  pair.gaps = CompareCurves(sizes[0], sizes[1], plan.resamples, plan.bootstrap_seed);
  return pair;
}

std::vector<CurvePair> HoldAllCurves(const ComparisonPlan& plan, const ComparisonRuns& runs,
                                     const ComparisonChoice& choice, const ComparisonResult& result) {
  std::vector<std::string> names[2];  // judged, controls
  for (const ComparisonArm& arm : plan.arms) {
    std::vector<std::string>& of = names[arm.control];
    if (!arm.curve.empty() && std::find(of.begin(), of.end(), arm.curve) == of.end()) of.push_back(arm.curve);
  }
  std::vector<CurvePair> pairs;
  for (const TestMetric metric : {TestMetric::kAuc, TestMetric::kGauc}) {
    for (const std::string& judged : names[0]) {
      for (const std::string& control : names[1]) {
        if (auto pair = HoldCurves(plan, runs, choice, result, metric, judged, control)) pairs.push_back(*pair);
      }
    }
  }
  return pairs;
}

// Of runs [begin, begin + n) of a resample.
double Mean(const double* values, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += values[i];
  return sum / static_cast<double>(n);
}

}  // namespace

const char* MetricName(TestMetric metric) {
  switch (metric) {
    case TestMetric::kAuc:
      return "auc";
    case TestMetric::kGauc:
      return "gauc";
    default:
      return "logloss";
  }
}

absl::StatusOr<ComparisonResult> Analyse(const ComparisonPlan& plan, const ComparisonRuns& runs,
                                         const ComparisonChoice& choice, const TestRows& rows, int threads) {
  ComparisonResult result;
  result.rows = rows.labels.size();
  result.groups = absl::flat_hash_set<uint64_t>(rows.groups.begin(), rows.groups.end()).size();
  // The runs of the judged arm and of the controls, one after another, for the bootstrap.
  std::vector<std::vector<const ComparisonRun*>> tested(plan.arms.size());
  std::vector<size_t> first(plan.arms.size());
  std::vector<std::vector<float>> scores;
  for (size_t a = 0; a < plan.arms.size(); ++a) {
    HILOMOE_ASSIGN_OR_RETURN(ArmResult arm, SummariseArm(plan, runs, choice, a));
    result.arms.push_back(std::move(arm));
    first[a] = scores.size();
    if (!plan.arms[a].control && a != plan.judged) continue;
    tested[a] = TestedRuns(plan, runs, choice, a);
    for (const ComparisonRun* run : tested[a]) scores.push_back(run->scores);
  }
  result.curves = HoldAllCurves(plan, runs, choice, result);
  const std::vector<const ComparisonRun*>& judged = tested[plan.judged];
  if (judged.empty()) return result;
  HILOMOE_ASSIGN_OR_RETURN(const BootstrapValues resamples,
                           Bootstrap(scores, rows.labels, rows.groups,
                                     {.resamples = plan.resamples, .seed = plan.bootstrap_seed, .threads = threads}));
  for (size_t a = 0; a < plan.arms.size(); ++a) {
    if (!plan.arms[a].control || tested[a].empty()) continue;
    const bool paired = std::equal(judged.begin(), judged.end(), tested[a].begin(), tested[a].end(),
                                   [](const ComparisonRun* x, const ComparisonRun* y) { return x->seed == y->seed; });
    for (const TestMetric metric : kMetrics) {
      const std::vector<double> x = Values(judged, metric), y = Values(tested[a], metric);
      if (x.empty() || y.empty()) continue;
      ArmDifference difference{.control = a, .metric = metric, .over_seeds = {}, .paired = paired, .over_rows = {}};
      difference.over_seeds = paired ? PairedDifference(x, y) : UnpairedDifference(x, y);
      std::vector<double> resampled;
      for (size_t b = 0; b < plan.resamples; ++b) {
        const double* const values = resamples[static_cast<size_t>(metric)].data() + b * scores.size();
        const double d = Mean(values + first[plan.judged], judged.size()) - Mean(values + first[a], tested[a].size());
        if (std::isfinite(d)) resampled.push_back(d);
      }
      difference.undefined_resamples = plan.resamples - resampled.size();
      difference.over_rows = PercentileInterval(resampled);
      difference.verdict = Judge(difference);
      result.differences.push_back(difference);
    }
  }
  return result;
}

}  // namespace hilomoe
