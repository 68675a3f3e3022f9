#include "tools/train/comparison_choice.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/file_io.h"
#include "model/status_macros.h"
#include "nlohmann/json.hpp"

namespace hilomoe {
namespace {

using Json = nlohmann::ordered_json;

std::string Path(const std::string& output) { return output + "/choice.json"; }

Json TrialNames(const ComparisonArm& arm) {
  Json names = Json::array();
  for (const ComparisonTrial& trial : arm.trials) names.push_back(trial.name);
  return names;
}

Json TestLogs(const ComparisonPlan& plan) {
  return std::vector<std::string>(plan.data.test().begin(), plan.data.test().end());
}

std::vector<uint64_t> SelectionSeeds(const ComparisonPlan& plan) {
  return {plan.seeds.begin(), plan.seeds.begin() + static_cast<ptrdiff_t>(plan.selection_seeds)};
}

std::optional<size_t> BestControl(const ComparisonPlan& plan, const ComparisonRuns& runs,
                                  const ComparisonChoice& choice) {
  std::optional<size_t> best;
  double best_mean = 0;
  for (size_t a = 0; a < plan.arms.size(); ++a) {
    if (!plan.arms[a].control || !choice.arms[a].trial.has_value()) continue;
    double sum = 0, count = 0;
    for (size_t s = 0; s < plan.seeds.size(); ++s) {
      const std::optional<double> value = runs.Get(a, *choice.arms[a].trial, s).Monitored(plan.monitor);
      sum += value.value_or(0);
      count += value.has_value();
    }
    if (count > 0 && (!best.has_value() || sum / count > best_mean)) {
      best = a;
      best_mean = sum / count;
    }
  }
  return best;
}

Json ArmJson(const ComparisonPlan& plan, const ComparisonRuns& runs, size_t a, const ComparisonChoice::Arm& choice) {
  const ComparisonArm& arm = plan.arms[a];
  Json valid = Json::object();
  for (size_t t = 0; t < arm.trials.size(); ++t) {
    const std::optional<double> mean = runs.SelectionMean(a, t);
    valid[arm.trials[t].name] = mean.has_value() ? Json(*mean) : Json();
  }
  return {{"trials", TrialNames(arm)},
          {"selection_seeds", SelectionSeeds(plan)},
          {"mean_valid", valid},  // larger = better; logloss with its sign turned
          {"chosen", choice.trial.has_value() ? Json(arm.trials[*choice.trial].name) : Json()},
          {"after_test", choice.after_test}};
}

bool AnyTestScored(const ComparisonRuns& runs) {
  return std::any_of(runs.all().begin(), runs.all().end(),
                     [](const ComparisonRun& run) { return std::filesystem::exists(run.Path("test.safetensors")); });
}

}  // namespace

absl::StatusOr<ComparisonChoice> ReadChoice(const ComparisonPlan& plan, const ComparisonRuns& runs,
                                            const std::string& output) {
  ComparisonChoice choice;
  choice.arms.resize(plan.arms.size());
  choice.seeds = plan.seeds;
  const std::string path = Path(output);
  if (!std::filesystem::exists(path)) return choice;
  HILOMOE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  try {
    const Json json = Json::parse(text);
    if (json.contains("test_logs") && json.at("test_logs") != TestLogs(plan) && AnyTestScored(runs)) {
      return absl::FailedPreconditionError(absl::StrCat("'", output, "' holds scores of other test logs, ",
                                                        json.at("test_logs").dump(),
                                                        "; remove every test.safetensors and start again"));
    }
    choice.seeds = json.at("seeds").get<std::vector<uint64_t>>();
    for (const auto& [name, arm] : json.at("arms").items()) {
      const auto found = std::find_if(plan.arms.begin(), plan.arms.end(),
                                      [&, &name = name](const ComparisonArm& a) { return a.name == name; });
      if (found == plan.arms.end()) {
        choice.dropped.push_back(name);
        continue;
      }
      if (arm.at("chosen").is_null()) continue;
      const size_t trial = found->Find(arm.at("chosen").get<std::string>());
      // With one trial nothing was chosen, and nothing can be chosen anew.
      const bool same_seeds = arm.at("selection_seeds").get<std::vector<uint64_t>>() == SelectionSeeds(plan);
      if (arm.at("trials") != TrialNames(*found) || (found->trials.size() > 1 && !same_seeds)) {
        return absl::FailedPreconditionError(
            absl::StrCat("'", path, "' froze the choice for arm '", name,
                         "' among other trials or on other selection seeds than it has now; test rows may have been "
                         "looked at since. Give the arm another name, or the comparison another --output"));
      }
      ComparisonChoice::Arm& to = choice.arms[static_cast<size_t>(found - plan.arms.begin())];
      to.trial = trial;
      to.after_test = arm.at("after_test").get<bool>();
    }
  } catch (const Json::exception& error) {
    return absl::DataLossError(absl::StrCat("'", path, "': ", error.what()));
  }
  return choice;
}

absl::Status FreezeChoice(const ComparisonPlan& plan, const ComparisonRuns& runs, const std::string& output,
                          ComparisonChoice* choice) {
  Json arms = Json::object();
  const std::string path = Path(output);
  std::string before;
  if (std::filesystem::exists(path)) {
    HILOMOE_ASSIGN_OR_RETURN(before, ReadFile(path));
    try {
      arms = Json::parse(before).at("arms");  // of arms that were dropped, too
    } catch (const Json::exception& error) {
      return absl::DataLossError(absl::StrCat("'", path, "': ", error.what()));
    }
  }
  const bool after_test = AnyTestScored(runs);
  for (size_t a = 0; a < plan.arms.size(); ++a) {
    if (choice->arms[a].trial.has_value()) continue;
    choice->arms[a] = {.trial = runs.Choice(a), .after_test = after_test};
    arms[plan.arms[a].name] = ArmJson(plan, runs, a, choice->arms[a]);
  }
  choice->best_control = BestControl(plan, runs, *choice);
  const Json json = {
      {"monitor", v1::TrainingConfig::Monitor_Name(plan.monitor)},
      {"seeds", before.empty() ? plan.seeds : choice->seeds},
      {"test_logs", TestLogs(plan)},
      {"arms", arms},
      {"best_control", choice->best_control.has_value() ? Json(plan.arms[*choice->best_control].name) : Json()}};
  const std::string text = json.dump(2) + "\n";
  return text == before ? absl::OkStatus() : WriteFile(path, text);
}

}  // namespace hilomoe
