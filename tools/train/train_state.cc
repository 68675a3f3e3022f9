#include "tools/train/train_state.h"

#include <array>
#include <bit>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/file_io.h"
#include "model/safetensors.h"
#include "model/status_macros.h"
#include "tools/train/training_config.h"

namespace hilomoe {
namespace {

using Json = nlohmann::ordered_json;

// Doubles go as their bits: a resumed run must continue to the bit, infinities included.
uint64_t Bits(double value) { return std::bit_cast<uint64_t>(value); }
double FromBits(const Json& json) { return std::bit_cast<double>(json.get<uint64_t>()); }

Json IntervalJson(const ProgressSums& sums) {
  return {{"batches", sums.batches},
          {"rows", sums.rows},
          {"loss_bits", Bits(sums.loss)},
          {"routing_loss_bits", Bits(sums.routing_loss)},
          {"gradient_norm_bits", Bits(sums.gradient_norm)},
          {"gradient_norm_max_bits", Bits(sums.gradient_norm_max)},
          {"seconds_bits", Bits(sums.seconds)}};
}

ProgressSums IntervalFromJson(const Json& json) {
  return {.batches = json.at("batches").get<uint64_t>(),
          .rows = json.at("rows").get<uint64_t>(),
          .loss = FromBits(json.at("loss_bits")),
          .routing_loss = FromBits(json.at("routing_loss_bits")),
          .gradient_norm = FromBits(json.at("gradient_norm_bits")),
          .gradient_norm_max = FromBits(json.at("gradient_norm_max_bits")),
          .seconds = FromBits(json.at("seconds_bits"))};
}

// Each in a file of its own, so that reading takes one of them twice, not all.
template <typename State>
auto Arrays(State& state) {
  return std::array{std::pair(std::string("weights"), &state.weights),
                    std::pair(std::string("best_weights"), &state.best_weights), std::pair(std::string("m"), &state.m),
                    std::pair(std::string("v"), &state.v)};
}

std::string ArrayPath(const std::string& directory, const std::string& name) {
  return absl::StrCat(directory, "/", name, ".safetensors");
}

}  // namespace

absl::Status WriteTrainState(const std::string& directory, const v1::TrainingConfig& config, int threads,
                             const TrainState& state) {
  HILOMOE_ASSIGN_OR_RETURN(AtomicDirectory staged, AtomicDirectory::Create(directory));
  const Json json = {{"threads", threads},
                     {"stage", state.stage},
                     {"epoch", state.epoch},
                     {"batch", state.batch},
                     {"total_steps", state.total_steps},
                     {"data_fingerprint", state.data_fingerprint},
                     {"started", state.started},
                     {"optimizer_steps", state.optimizer_steps},
                     {"evaluations_without_improvement", state.evaluations_without_improvement},
                     {"calibrated", state.calibrated},
                     {"rate_factor_bits", Bits(state.rate_factor)},
                     {"start_metric_bits", Bits(state.start_metric)},
                     {"best_metric_bits", Bits(state.best_metric)},
                     {"epoch_loss_bits", Bits(state.epoch_loss)},
                     {"interval", IntervalJson(state.interval)},
                     {"run_log", {{"bytes", state.run_log.bytes}, {"xxh3", state.run_log.xxh3}}},
                     {"seconds_bits", Bits(state.seconds)},
                     {"config", ConfigText(config)}};
  HILOMOE_RETURN_IF_ERROR(WriteFile(staged.staging_path() + "/state.json", json.dump(2) + "\n"));
  for (const auto& [name, values] : Arrays(state)) {
    HILOMOE_RETURN_IF_ERROR(WriteSafetensors(ArrayPath(staged.staging_path(), name),
                                             {MakeEntry(name, "F32", {values->size()}, absl::MakeConstSpan(*values))}));
  }
  return staged.Commit();
}

absl::StatusOr<SavedRun> ReadTrainState(const std::string& directory, const v1::TrainingConfig& config) {
  const std::string path = directory + "/state.json";
  HILOMOE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  SavedRun run;
  TrainState& state = run.state;
  try {
    const Json json = Json::parse(text);
    if (json.at("config").get<std::string>() != ConfigText(config)) {
      return absl::FailedPreconditionError(
          absl::StrCat("'", path, "' was saved by a run with another config or seed; train without --resume"));
    }
    run.threads = json.at("threads").get<int>();
    state.stage = json.at("stage").get<uint64_t>();
    state.epoch = json.at("epoch").get<uint64_t>();
    state.batch = json.at("batch").get<uint64_t>();
    state.total_steps = json.at("total_steps").get<uint64_t>();
    state.data_fingerprint = json.at("data_fingerprint").get<uint64_t>();
    state.started = json.at("started").get<bool>();
    state.optimizer_steps = json.at("optimizer_steps").get<uint64_t>();
    state.evaluations_without_improvement = json.at("evaluations_without_improvement").get<uint64_t>();
    state.calibrated = json.at("calibrated").get<bool>();
    state.rate_factor = FromBits(json.at("rate_factor_bits"));
    state.start_metric = FromBits(json.at("start_metric_bits"));
    state.best_metric = FromBits(json.at("best_metric_bits"));
    state.epoch_loss = FromBits(json.at("epoch_loss_bits"));
    state.interval = IntervalFromJson(json.at("interval"));
    state.run_log.bytes = json.at("run_log").at("bytes").get<uint64_t>();
    state.run_log.xxh3 = json.at("run_log").at("xxh3").get<uint64_t>();
    state.seconds = FromBits(json.at("seconds_bits"));
  } catch (const Json::exception& error) {
    return absl::DataLossError(absl::StrCat("'", path, "': ", error.what()));
  }
  for (const auto& [name, values] : Arrays(state)) {
    HILOMOE_ASSIGN_OR_RETURN(const Safetensors file, Safetensors::Read(ArrayPath(directory, name)));
    HILOMOE_ASSIGN_OR_RETURN(*values, file.Floats(name));
  }
  return run;
}

}  // namespace hilomoe
