#include "nlohmann/json.hpp"
#include "tools/common/metrics_json.h"
#include "tools/train/comparison_report.h"

namespace hilomoe {
namespace {

using Json = nlohmann::ordered_json;

template <typename T>
Json OrNull(const std::optional<T>& value) {
  return value.has_value() ? Json(*value) : Json();
}

Json ToJson(const std::optional<Interval>& interval) {
  return interval.has_value() ? Json::array({interval->low, interval->high}) : Json();
}

Json ToJson(const Sample& sample) {
  if (sample.n == 0) return Json();
  return {{"n", sample.n}, {"mean", sample.mean}, {"deviation", OrNull(sample.deviation)}};
}

Json ToJson(const MetricSamples& samples) {
  Json json = Json::object();
  for (size_t m = 0; m < kTestMetrics; ++m) json[MetricName(static_cast<TestMetric>(m))] = ToJson(samples[m]);
  return json;
}

Json ToJson(const ComparisonPlan& plan, const ComparisonRun& run) {
  using State = ComparisonRun::State;
  Json json = {{"trial", plan.arms[run.arm].trials[run.trial].name},
               {"seed", plan.seeds[run.seed]},
               {"state", run.state == State::kComplete ? "complete"
                         : run.state == State::kFailed ? "failed"
                                                       : "not run"},
               {"attempts", run.attempts},
               {"resumed", run.resumed}};
  if (!run.error.empty()) json["error"] = run.error;
  if (!run.test_error.empty()) json["test_error"] = run.test_error;
  if (run.complete()) {
    json["metrics"] = run.metrics;
    json["parameters"] = run.parameters;
  }
  if (run.test.has_value()) json["test"] = MetricsJson(*run.test);
  return json;
}

const char* Name(Verdict verdict) {
  return verdict == Verdict::kBetter ? "better" : verdict == Verdict::kWorse ? "worse" : "undecided";
}

const char* Name(CurveGap::Saving::Bound bound) {
  using Bound = CurveGap::Saving::Bound;
  return bound == Bound::kAtLeast ? "at_least" : bound == Bound::kAtMost ? "at_most" : "exact";
}

}  // namespace

std::string ReportJson(const ComparisonPlan& plan, const ComparisonRuns& runs, const ComparisonChoice& choice,
                       const ComparisonResult& result) {
  Json arms = Json::array();
  for (size_t a = 0; a < plan.arms.size(); ++a) {
    const ArmResult& arm = result.arms[a];
    Json json = {{"name", plan.arms[a].name},
                 {"control", plan.arms[a].control},
                 {"trials", plan.arms[a].trials.size()},
                 {"chosen", arm.trial.has_value() ? Json(plan.arms[a].trials[*arm.trial].name) : Json()},
                 {"curve", plan.arms[a].curve.empty() ? Json() : Json(plan.arms[a].curve)},
                 {"chosen_after_test", choice.arms[a].after_test},
                 {"test", ToJson(arm.test)},
                 {"valid", ToJson(arm.valid)},
                 {"train_seconds", ToJson(arm.seconds)},
                 {"flops_per_row", arm.flops},
                 {"parameters", OrNull(arm.parameters)},
                 {"failed", arm.failed},
                 {"runs", Json::array()}};
    for (const ComparisonRun& run : runs.all()) {
      // Seeds that a trial was never meant to run on say nothing.
      const bool planned = run.seed < plan.selection_seeds || arm.trial == run.trial;
      if (run.arm == a && planned) json["runs"].push_back(ToJson(plan, run));
    }
    arms.push_back(std::move(json));
  }
  Json differences = Json::array();
  for (const ArmDifference& d : result.differences) {
    differences.push_back({{"control", plan.arms[d.control].name},
                           {"metric", MetricName(d.metric)},
                           {"difference", d.over_seeds.mean},
                           {"paired_by_seed", d.paired},
                           {"degrees_of_freedom", d.over_seeds.degrees},
                           {"interval_over_seeds", ToJson(d.over_seeds.interval)},
                           {"interval_over_rows", ToJson(d.over_rows)},
                           {"undefined_resamples", d.undefined_resamples},
                           {"verdict", Name(d.verdict)}});
  }
  Json curves = Json::array();
  for (const CurvePair& pair : result.curves) {
    for (size_t i = 0; i < pair.arms.size(); ++i) {
      const std::optional<Difference>& gain = pair.gaps[i].at_equal_flops;
      const CurveGap::Saving& saving = pair.gaps[i].at_equal_value;
      curves.push_back({{"arm", plan.arms[pair.arms[i]].name},
                        {"control_curve", plan.arms[pair.controls[0]].curve},
                        {"metric", MetricName(pair.metric)},
                        {"seeds", pair.seeds},
                        {"gain_at_equal_flops", gain.has_value() ? Json(gain->mean) : Json()},
                        {"gain_interval", gain.has_value() ? ToJson(gain->interval) : Json()},
                        {"saving_at_equal_quality", saving.value},
                        {"saving_bound", Name(saving.bound)},
                        {"saving_interval", ToJson(saving.interval)}});
    }
  }
  const Json json = {
      {"title", plan.title},
      {"monitor", v1::TrainingConfig::Monitor_Name(plan.monitor)},
      {"seeds", plan.seeds},
      {"selection_seeds", plan.selection_seeds},
      {"test_logs", std::vector<std::string>(plan.data.test().begin(), plan.data.test().end())},
      {"test_rows", result.rows},
      {"test_groups", result.groups},
      {"bootstrap",
       {{"resamples", plan.resamples}, {"seed", plan.bootstrap_seed}, {"unit", result.groups > 0 ? "group" : "row"}}},
      {"judged", plan.arms[plan.judged].name},
      {"best_control", choice.best_control.has_value() ? Json(plan.arms[*choice.best_control].name) : Json()},
      {"flops_reference", plan.arms[plan.flops_reference].name},
      {"arms", arms},
      {"differences", differences},
      {"curves", curves}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace hilomoe
