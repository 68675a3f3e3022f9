#include "tools/train/comparison_runs.h"

#include <cmath>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "google/protobuf/text_format.h"
#include "model/file_io.h"
#include "model/safetensors.h"
#include "model/status_macros.h"
#include "nlohmann/json.hpp"

namespace hilomoe {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using State = ComparisonRun::State;

// The last thing that Train writes into a checkpoint's metrics: a checkpoint without it is of a run under way.
constexpr char kSeconds[] = "train.seconds";

std::string ConfigText(const ComparisonPlan& plan, const ComparisonRun& run) {
  v1::TrainingConfig config = plan.arms[run.arm].trials[run.trial].config;
  config.set_seed(plan.seeds[run.seed]);
  std::string text;
  google::protobuf::TextFormat::PrintToString(config, &text);
  return text;
}

absl::Status WriteRecord(const ComparisonRun& run) {
  const char* const state = run.state == State::kComplete ? "complete"
                            : run.state == State::kFailed ? "failed"
                                                          : "running";
  const Json json = {{"state", state}, {"attempts", run.attempts}, {"resumed", run.resumed}, {"error", run.error}};
  return WriteFile(run.Path("run.json"), json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

// Whether the checkpoint is a complete run's; then its metrics and parameters are read.
absl::StatusOr<bool> ReadCompleted(ComparisonRun* run) {
  const std::string path = run->Path("checkpoint/metrics.json");
  if (!fs::exists(path)) return false;
  HILOMOE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  run->metrics.clear();
  try {
    const Json json = Json::parse(text);
    for (const auto& [name, value] : json.at("metrics").items()) {
      if (value.is_number()) run->metrics[name] = value.get<double>();
    }
  } catch (const Json::exception& error) {
    return absl::DataLossError(absl::StrCat("'", path, "': ", error.what()));
  }
  if (run->metrics.count(kSeconds) == 0) return false;
  HILOMOE_ASSIGN_OR_RETURN(const Safetensors weights, Safetensors::Read(run->Path("checkpoint/weights.safetensors")));
  run->parameters = 0;
  for (const std::string& name : weights.Names()) {
    uint64_t size = 1;
    for (const size_t dimension : weights.Shape(name)) size *= dimension;
    run->parameters += size;
  }
  return true;
}

absl::Status ReadRun(const ComparisonPlan& plan, bool retry_failed, ComparisonRun* run) {
  const std::string config = run->Path("config.textproto");
  if (!fs::exists(config)) return absl::OkStatus();
  HILOMOE_ASSIGN_OR_RETURN(const std::string text, ReadFile(config));
  if (text != ConfigText(plan, *run)) {
    return absl::FailedPreconditionError(
        absl::StrCat("'", config, "' is of a run with another config than arm '", plan.arms[run->arm].name,
                     "', trial '", plan.arms[run->arm].trials[run->trial].name,
                     "' has now; give the changed trial or arm another name, or the comparison another --output"));
  }
  if (const std::string path = run->Path("run.json"); fs::exists(path)) {
    HILOMOE_ASSIGN_OR_RETURN(const std::string record, ReadFile(path));
    try {
      const Json json = Json::parse(record);
      run->attempts = json.at("attempts").get<int>();
      run->resumed = json.at("resumed").get<bool>();
      run->error = json.at("error").get<std::string>();
      if (json.at("state") == "failed" && !retry_failed) run->state = State::kFailed;
    } catch (const Json::exception& error) {
      return absl::DataLossError(absl::StrCat("'", path, "': ", error.what()));
    }
  }
  if (run->state == State::kFailed) return absl::OkStatus();
  run->error.clear();
  // A run may have ended after this program did.
  HILOMOE_ASSIGN_OR_RETURN(const bool complete, ReadCompleted(run));
  if (!complete) return absl::OkStatus();
  run->state = State::kComplete;
  // A run that was killed right after its results has not removed these.
  std::error_code ignored;
  fs::remove_all(run->Path("resume"), ignored);
  return absl::OkStatus();
}

}  // namespace

std::optional<double> ComparisonRun::Monitored(v1::TrainingConfig::Monitor monitor) const {
  if (!complete()) return std::nullopt;
  const bool logloss = monitor == v1::TrainingConfig::LOGLOSS;
  const auto found = metrics.find(logloss                               ? "valid.logloss"
                                  : monitor == v1::TrainingConfig::GAUC ? "valid.gauc"
                                                                        : "valid.auc");
  if (found == metrics.end()) return std::nullopt;
  return logloss ? -found->second : found->second;
}

absl::StatusOr<ComparisonRuns> ComparisonRuns::Open(const ComparisonPlan& plan, const std::string& output,
                                                    bool retry_failed) {
  ComparisonRuns runs(plan);
  for (size_t a = 0; a < plan.arms.size(); ++a) {
    runs.first_.push_back(runs.runs_.size());
    for (size_t t = 0; t < plan.arms[a].trials.size(); ++t) {
      for (size_t s = 0; s < plan.seeds.size(); ++s) {
        ComparisonRun run;
        run.arm = a;
        run.trial = t;
        run.seed = s;
        run.directory =
            absl::StrCat(output, "/", plan.arms[a].name, "/", plan.arms[a].trials[t].name, "/", plan.seeds[s]);
        HILOMOE_RETURN_IF_ERROR(ReadRun(plan, retry_failed, &run));
        runs.runs_.push_back(std::move(run));
      }
    }
  }
  return runs;
}

const ComparisonRun& ComparisonRuns::Get(size_t arm, size_t trial, size_t seed) const {
  return runs_[first_[arm] + trial * plan_->seeds.size() + seed];
}
ComparisonRun& ComparisonRuns::Get(size_t arm, size_t trial, size_t seed) {
  return runs_[first_[arm] + trial * plan_->seeds.size() + seed];
}

std::optional<double> ComparisonRuns::SelectionMean(size_t arm, size_t trial) const {
  double sum = 0;
  for (size_t s = 0; s < plan_->selection_seeds; ++s) {
    const std::optional<double> value = Get(arm, trial, s).Monitored(plan_->monitor);
    if (!value.has_value()) return std::nullopt;
    sum += *value;
  }
  return sum / static_cast<double>(plan_->selection_seeds);
}

bool ComparisonRuns::SelectionOver(size_t arm) const {
  for (size_t t = 0; t < plan_->arms[arm].trials.size(); ++t) {
    for (size_t s = 0; s < plan_->selection_seeds; ++s) {
      const State state = Get(arm, t, s).state;
      if (state == State::kPending || state == State::kRunning) return false;
    }
  }
  return true;
}

std::optional<size_t> ComparisonRuns::Choice(size_t arm) const {
  // Where there is nothing to choose, a failed run costs itself alone.
  if (plan_->arms[arm].trials.size() == 1) return 0;
  if (!SelectionOver(arm)) return std::nullopt;
  std::optional<size_t> best;
  for (size_t t = 0; t < plan_->arms[arm].trials.size(); ++t) {
    const std::optional<double> mean = SelectionMean(arm, t);
    if (mean.has_value() && (!best.has_value() || *mean > *SelectionMean(arm, *best))) best = t;
  }
  return best;
}

absl::Status BeginRun(const ComparisonPlan& plan, ComparisonRun* run, bool* resume) {
  std::error_code error;
  fs::create_directories(run->directory, error);
  if (error) {
    return absl::InvalidArgumentError(absl::StrCat("cannot create '", run->directory, "': ", error.message()));
  }
  *resume = fs::exists(run->Path("resume/state.json"));
  ++run->attempts;
  // Without a state it starts anew, whatever was lost before.
  run->resumed = *resume;
  run->error.clear();
  run->state = State::kRunning;
  HILOMOE_RETURN_IF_ERROR(WriteFile(run->Path("config.textproto"), ConfigText(plan, *run)));
  return WriteRecord(*run);
}

absl::Status EndRun(const absl::Status& ended, ComparisonRun* run) {
  run->state = State::kFailed;
  run->error = std::string(ended.message());
  if (ended.ok()) {
    const absl::StatusOr<bool> complete = ReadCompleted(run);
    if (complete.ok() && *complete) {
      run->state = State::kComplete;
    } else {
      run->error =
          complete.ok() ? "the training ended well, but left no checkpoint" : std::string(complete.status().message());
    }
  }
  return WriteRecord(*run);
}

absl::Status ReadTest(ComparisonRun* run, TestRows* rows) {
  const std::string path = run->Path("test.safetensors");
  const auto read = [&]() -> absl::Status {
    HILOMOE_ASSIGN_OR_RETURN(const Safetensors file, Safetensors::Read(path));
    HILOMOE_ASSIGN_OR_RETURN(run->scores, file.Floats("scores"));
    HILOMOE_ASSIGN_OR_RETURN(const std::vector<uint8_t> labels, file.Bytes("labels"));
    TestRows own{.labels = labels, .groups = {}};
    if (file.Has("groups")) {
      HILOMOE_ASSIGN_OR_RETURN(const std::vector<int64_t> groups, file.Int64s("groups"));
      own.groups.assign(groups.begin(), groups.end());
    }
    if (rows->labels.empty()) {
      *rows = std::move(own);
    } else if (own.labels != rows->labels || own.groups != rows->groups) {
      return absl::FailedPreconditionError(absl::StrCat(
          "'", path,
          "' was made from other test rows than the runs before it; remove every test.safetensors and start "
          "again"));
    }
    HILOMOE_ASSIGN_OR_RETURN(run->test, ComputeMetrics(run->scores, rows->labels, rows->groups));
    return absl::OkStatus();
  };
  const absl::Status status = read();
  if (absl::IsFailedPrecondition(status)) return status;
  if (!status.ok()) {
    run->test_error = std::string(status.message());
    run->scores.clear();
  }
  return absl::OkStatus();
}

}  // namespace hilomoe
