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
      {"differences", differences}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace hilomoe
