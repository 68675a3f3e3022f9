#include "tools/train/evidence.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "model/flops.h"
#include "model/status_macros.h"
#include "tools/common/calibration.h"
#include "tools/common/metrics_json.h"
#include "tools/train/run_report.h"
#include "tools/train/schedule.h"
#include "tools/train/slices.h"
#include "tools/train/training_config.h"

#define XXH_INLINE_ALL
#include "xxhash.h"

namespace hilomoe {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kIntervalsPerEpoch = 20;
constexpr uint64_t kMostIntervalBatches = 500;
constexpr size_t kCalibrationBins = 20;
constexpr size_t kHistogramBins = 400;

double SteadySeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

Json UtilisationJson(const ModelSpec& spec, const std::vector<v1::ModelFileHeader::BlockUtilisation>& utilisation) {
  Json blocks = Json::array();
  for (const auto& block : utilisation) {
    Json layers = Json::array();
    for (const auto& layer : block.layers()) {
      Json scores = Json::array(), dead = Json::array();
      for (int i = 0; i < layer.expert_size(); ++i) {
        scores.push_back(layer.expert(i));
        if (layer.expert(i) < kDeadShare / layer.expert_size()) dead.push_back(i);
      }
      layers.push_back({{"entropy", layer.entropy()}, {"scores", scores}, {"dead", dead}});
    }
    blocks.push_back({{"block", spec.BlockName(block.block())}, {"layers", layers}});
  }
  return blocks;
}

Json RunJson(const RunFacts& facts) {
  const std::string config = ConfigText(*facts.config);
  const Flops flops = CountFlops(*facts.spec);
  size_t experts = 0;
  for (const TensorSpec& tensor : facts.registry->tensors()) {
    if (tensor.group == TensorGroup::kExpert || tensor.group == TensorGroup::kRouter) experts += tensor.size;
  }
  Json stages = Json::array();
  for (int s = 0; s < facts.config->stages_size(); ++s) {
    const v1::Stage& stage = facts.config->stages(s);
    stages.push_back({{"name", stage.name()},
                      {"experts", stage.experts()},
                      {"epochs", StageEpochs(*facts.config, static_cast<size_t>(s))}});
  }
  return {
      {"event", "run"},
      {"format", kRunLogFormat},
      {"created", absl::FormatTime(absl::RFC3339_sec, absl::Now(), absl::UTCTimeZone())},
      {"created_by", "hilomoe-train " HILOMOE_VERSION},
      {"config", config},
      {"config_digest", absl::StrFormat("%016x", XXH3_64bits(config.data(), config.size()))},
      {"seed", facts.config->seed()},
      {"threads", facts.threads},
      {"parameters", facts.registry->size()},
      {"parameters_without_experts", facts.registry->size() - experts},
      {"flops",
       {{"row", flops.row},
        {"row_without_experts", flops.dense_row},
        {"request", flops.request},
        {"candidate", flops.candidate}}},
      {"rows", {{"train", facts.train_rows}, {"train_positives", facts.train_positives}, {"valid", facts.valid_rows}}},
      {"monitor", absl::AsciiStrToLower(v1::TrainingConfig::Monitor_Name(facts.config->monitor()))},
      {"stages", stages}};
}

// Where training is; the epoch is that of the latest batch of the stage.
Json StageEvent(const char* event, const TrainState& state) {
  return {{"event", event},
          {"stage", state.stage},
          {"epoch", state.batch == 0 ? state.epoch : state.epoch + 1},
          {"step", state.total_steps}};
}

Json RatesJson(const GroupRates& rates) {
  constexpr const char* kNames[] = {"embedding", "backbone", "expert", "router", "head"};
  Json json = Json::object();
  for (size_t g = 0; g < std::size(kNames); ++g) {
    if (rates[g] > 0) json[kNames[g]] = rates[g];
  }
  return json;
}

absl::StatusOr<Json> FixedRoutingJson(const ModelSpec& spec, const RowCache& rows,
                                      const ModelTensors<const float>& tensors, const Evaluation& evaluation,
                                      Network<float>& network) {
  if (evaluation.utilisation.empty()) return Json();
  HILOMOE_ASSIGN_OR_RETURN(const Evaluation fixed,
                           EvaluateWithFixedScores(spec, tensors, rows, MeanScores(spec, evaluation), network));
  std::fprintf(stderr, "  with every row routed alike %s\n", MetricsText(fixed.metrics).c_str());
  if (evaluation.metrics.auc.has_value() && fixed.metrics.auc.has_value()) {
    std::fprintf(stderr, "  routing is worth AUC %+.5f  logloss %+.5f\n", *evaluation.metrics.auc - *fixed.metrics.auc,
                 *evaluation.metrics.logloss - *fixed.metrics.logloss);
  }
  return Json(MetricsJson(fixed.metrics));
}

}  // namespace

double Evidence::seconds() const { return SteadySeconds() - epoch_start_; }

absl::Status Evidence::Start(const std::string& output_dir, const RunFacts& facts, bool resume,
                             const TrainState& state) {
  output_dir_ = output_dir;
  facts_ = facts;
  epoch_start_ = SteadySeconds() - state.seconds;
  const std::string path = output_dir + "/" + kRunLogName;
  if (resume) {
    HILOMOE_ASSIGN_OR_RETURN(log_, RunLog::Resume(path, state.run_log));
  } else {
    HILOMOE_ASSIGN_OR_RETURN(log_, RunLog::Create(path));
  }
  if (log_.empty()) {
    Json run = RunJson(facts);
    if (resume) run["earlier_lost"] = true;
    HILOMOE_RETURN_IF_ERROR(log_.Append(run));
  }
  if (!resume) return absl::OkStatus();
  return log_.Append({{"event", "resume"}, {"step", state.total_steps}, {"seconds", seconds()}});
}

absl::Status Evidence::Step(const StepFacts& step, TrainState* state) {
  ProgressSums& sums = state->interval;
  ++sums.batches;
  sums.rows += step.rows;
  sums.loss += step.loss;
  sums.routing_loss += step.routing_loss;
  sums.gradient_norm += step.gradient_norm;
  sums.gradient_norm_max = std::max(sums.gradient_norm_max, step.gradient_norm);
  sums.seconds += step.seconds;
  const uint64_t most = std::clamp<uint64_t>(step.batches / kIntervalsPerEpoch, 1, kMostIntervalBatches);
  if (sums.batches < most && state->batch < step.batches) return absl::OkStatus();
  const double batches = static_cast<double>(sums.batches);
  Json json = StageEvent("progress", *state);
  json.update({{"loss", sums.loss / batches},
               {"routing_loss", sums.routing_loss / batches},
               {"gradient_norm", sums.gradient_norm / batches},
               {"gradient_norm_max", sums.gradient_norm_max},
               {"learning_rates", RatesJson(step.rates)},
               {"rows_per_s", sums.seconds > 0 ? Json(static_cast<double>(sums.rows) / sums.seconds) : Json()},
               {"seconds", seconds()}});
  sums = {};
  return log_.Append(json);
}

absl::Status Evidence::Evaluated(const Evaluation& evaluation, bool best, const TrainState& state) {
  Json json = StageEvent("evaluation", state);
  json.update({{"metrics", Json(MetricsJson(evaluation.metrics))},
               {"utilisation", UtilisationJson(*facts_.spec, evaluation.utilisation)},
               {"best", best},
               {"rate_factor", state.rate_factor},
               {"seconds", seconds()}});
  return log_.Append(json);
}

absl::Status Evidence::StageEnded(const Evaluation& kept_evaluation, bool kept, const TrainState& state) {
  Json json = StageEvent("stage_end", state);
  json.update({{"kept", kept}, {"metrics", Json(MetricsJson(kept_evaluation.metrics))}, {"seconds", seconds()}});
  HILOMOE_RETURN_IF_ERROR(log_.Append(json));
  return WriteRunReport(output_dir_, output_dir_ + "/" + kRunReportName);
}

absl::Status Evidence::Final(const std::string& split, const std::vector<std::string>& paths, const RowCache& rows,
                             const ModelTensors<const float>& tensors, const Evaluation& evaluation,
                             Network<float>& network) {
  const auto& [probability, label, groups] = evaluation.rows;
  HILOMOE_ASSIGN_OR_RETURN(const std::vector<CalibrationBin> bins,
                           EqualCountBins(probability, label, kCalibrationBins));
  HILOMOE_ASSIGN_OR_RETURN(const ScoreHistogram histogram, HistogramOfScores(probability, label, kHistogramBins));
  Json bins_json = Json::array();
  for (const CalibrationBin& bin : bins) bins_json.push_back({bin.rows, bin.mean_probability, bin.mean_label});
  HILOMOE_ASSIGN_OR_RETURN(Json fixed, FixedRoutingJson(*facts_.spec, rows, tensors, evaluation, network));
  const auto& names = facts_.config->data().slices();
  HILOMOE_ASSIGN_OR_RETURN(const std::vector<SliceColumn> columns,
                           ReadSliceColumns(paths, {names.begin(), names.end()}));
  Json slices = Json::array();
  for (const SliceColumn& column : columns) {
    HILOMOE_ASSIGN_OR_RETURN(Json slice, SliceJson(column, probability, label, groups));
    slices.push_back(std::move(slice));
  }
  return log_.Append({{"event", "final"},
                      {"split", split},
                      {"metrics", Json(MetricsJson(evaluation.metrics))},
                      {"utilisation", UtilisationJson(*facts_.spec, evaluation.utilisation)},
                      {"calibration", {{"bins", bins_json}, {"error", CalibrationError(bins)}}},
                      {"histogram", {{"negatives", histogram.negatives}, {"positives", histogram.positives}}},
                      {"fixed_routing", fixed},
                      {"slices", slices}});
}

absl::Status Evidence::Finish(const TrainState& state) {
  HILOMOE_RETURN_IF_ERROR(log_.Append({{"event", "end"}, {"step", state.total_steps}, {"seconds", seconds()}}));
  return WriteRunReport(output_dir_, output_dir_ + "/" + kRunReportName);
}

absl::Status Evidence::Save(TrainState* state) {
  HILOMOE_ASSIGN_OR_RETURN(state->run_log, log_.Sync());
  state->seconds = seconds();
  return absl::OkStatus();
}

}  // namespace hilomoe
