#include "tools/train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "model/checkpoint.h"
#include "model/flops.h"
#include "model/status_macros.h"
#include "runtime/cpu_count.h"
#include "tools/common/progress_bar.h"
#include "tools/train/dataset.h"
#include "tools/train/evaluation.h"
#include "tools/train/evidence.h"
#include "tools/train/initialize.h"
#include "tools/train/network.h"
#include "tools/train/optimizer.h"
#include "tools/train/parallel.h"
#include "tools/train/random.h"
#include "tools/train/slices.h"
#include "tools/train/train_state.h"
#include "tools/train/training_config.h"

namespace hilomoe {
namespace {

constexpr double kImprovement = 1e-6;
constexpr size_t kCalibrationRows = 4096;

double NowSeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class Trainer {
 public:
  Trainer(const TrainOptions& options, v1::TrainingConfig config, ModelSpec spec)
      : options_(options), config_(std::move(config)), spec_(std::move(spec)) {}

  absl::Status Run() {
    HILOMOE_RETURN_IF_ERROR(Prepare());
    double saved = NowSeconds();
    while (state_.stage < static_cast<uint64_t>(config_.stages_size())) {
      if (options_.stop_requested && options_.stop_requested()) {
        HILOMOE_RETURN_IF_ERROR(Save());
        progress_.reset();
        return absl::CancelledError(absl::StrCat("stopped; --resume continues from '", ResumePath(), "'"));
      }
      if (!state_.started) HILOMOE_RETURN_IF_ERROR(StartStage());
      HILOMOE_RETURN_IF_ERROR(Step());
      if (NowSeconds() - saved >= options_.save_every_s) {
        HILOMOE_RETURN_IF_ERROR(Save());
        saved = NowSeconds();
      }
    }
    return Finish();
  }

 private:
  const v1::Stage& stage() const { return config_.stages(static_cast<int>(state_.stage)); }
  std::string ResumePath() const { return options_.output_dir + "/resume"; }
  ModelTensors<const float> Tensors(const std::vector<float>& weights) const {
    return registry_->Bind<const float>(spec_, weights.data());
  }

  absl::Status Prepare();
  absl::Status StartStage();
  absl::Status Step();
  absl::Status EvaluateStage(bool* over);
  absl::Status EndStage();
  absl::Status Save();
  absl::Status WriteBest(const Evaluation& evaluation, const std::map<std::string, double>& more);
  absl::StatusOr<Evaluation> EvaluateFinally(const std::string& split, const std::vector<std::string>& paths,
                                             const Dataset& dataset);
  absl::Status Finish();

  const TrainOptions options_;
  const v1::TrainingConfig config_;
  const ModelSpec spec_;
  int threads_ = 1;
  LogStatistics statistics_;
  std::vector<uint32_t> table_rows_;
  std::unique_ptr<TensorRegistry> registry_;
  std::unique_ptr<TrainingEncoder> encoder_;
  std::vector<float> encoder_arena_;  // the numeric statistics, at an address that stays
  Dataset train_, valid_;
  std::unique_ptr<Parallel> parallel_;
  std::unique_ptr<Network<float>> network_;
  std::unique_ptr<Adam> adam_;
  TrainState state_;
  Evaluation best_evaluation_;
  Evidence evidence_;

  // Of the step under way; kept to reuse memory.
  std::vector<uint32_t> order_;
  uint64_t order_key_ = ~uint64_t{0};
  EncodedBatch batch_;
  std::vector<float> labels_, logits_, gradients_;
  std::unique_ptr<ProgressBar> progress_;
};

absl::Status Trainer::Prepare() {
  const LogChunksOptions columns{config_.data().label(), config_.data().group_by(), true};
  const std::vector<std::string> train = InDirectory(options_.data_dir, config_.data().train());
  // A missing test log should not be noticed when training is over.
  for (const std::string& path : InDirectory(options_.data_dir, config_.data().test())) {
    HILOMOE_RETURN_IF_ERROR(LogChunks::Open({path}, spec_, columns).status());
  }
  for (const auto& logs : {config_.data().valid(), config_.data().test()}) {
    const auto& slices = config_.data().slices();
    HILOMOE_RETURN_IF_ERROR(CheckSliceColumns(InDirectory(options_.data_dir, logs), {slices.begin(), slices.end()}));
  }
  HILOMOE_ASSIGN_OR_RETURN(statistics_, MeasureLog(train, spec_, columns));
  table_rows_ = TableRows(spec_, statistics_.vocabularies);
  registry_ = std::make_unique<TensorRegistry>(TensorRegistry::ForTraining(spec_, table_rows_));
  threads_ = options_.threads > 0 ? options_.threads : UsableCpuCount();
  if (options_.resume) {
    HILOMOE_ASSIGN_OR_RETURN(SavedRun saved, ReadTrainState(ResumePath(), config_));
    state_ = std::move(saved.state);
    threads_ = saved.threads;
    if (state_.weights.size() != registry_->size()) {
      return absl::FailedPreconditionError(
          absl::StrCat("'", ResumePath(), "' was saved with another training log; train without --resume"));
    }
  } else {
    state_.weights.assign(registry_->size(), 0);
    InitializeWeights(spec_, *registry_, config_.seed(), config_.optimizer().embedding_init_deviation(),
                      state_.weights.data());
    const ModelTensors<float> tensors = registry_->Bind(spec_, state_.weights.data());
    for (size_t f = 0; f < spec_.features().size(); ++f) {
      std::copy(statistics_.standardise[f].begin(), statistics_.standardise[f].end(), tensors.features.standardise[f]);
      std::copy(statistics_.boundaries[f].begin(), statistics_.boundaries[f].end(), tensors.features.boundaries[f]);
    }
  }
  encoder_arena_ = state_.weights;
  encoder_ = std::make_unique<TrainingEncoder>(spec_, statistics_.vocabularies, Tensors(encoder_arena_).features);
  HILOMOE_ASSIGN_OR_RETURN(train_, ReadDataset("train", train, spec_, columns, encoder_->encoder()));
  HILOMOE_ASSIGN_OR_RETURN(valid_, ReadDataset("valid", InDirectory(options_.data_dir, config_.data().valid()), spec_,
                                               columns, encoder_->encoder()));
  if (train_.size() < 2) return absl::InvalidArgumentError("one training row is too few");
  const auto positives = std::count(train_.labels.begin(), train_.labels.end(), 1.0F);
  if (positives == 0 || positives == static_cast<ptrdiff_t>(train_.size())) {
    return absl::InvalidArgumentError(absl::StrCat("every training label is ", positives > 0, "; nothing to learn"));
  }
  parallel_ = std::make_unique<Parallel>(threads_);
  network_ = std::make_unique<Network<float>>(spec_, *registry_, *parallel_);
  adam_ = std::make_unique<Adam>(config_.optimizer(), *registry_, *parallel_);
  if (options_.resume && state_.started) {
    adam_->m() = std::move(state_.m);
    adam_->v() = std::move(state_.v);
    adam_->steps() = state_.optimizer_steps;
    HILOMOE_ASSIGN_OR_RETURN(best_evaluation_,
                             Evaluate(spec_, Tensors(state_.best_weights), valid_, stage().experts(), *network_));
  }
  gradients_.assign(registry_->size(), 0);
  std::fprintf(stderr, "%zu training rows (%.2f %% positive), %zu validation rows, %d threads\n", train_.size(),
               100.0 * static_cast<double>(positives) / static_cast<double>(train_.size()), valid_.size(), threads_);
  std::fprintf(stderr, "%zu parameters; FLOPs: %s\n", registry_->size(), FlopsText(CountFlops(spec_)).c_str());
  return evidence_.Start(options_.output_dir,
                         {.config = &config_,
                          .spec = &spec_,
                          .registry = registry_.get(),
                          .threads = threads_,
                          .train_rows = train_.size(),
                          .train_positives = static_cast<size_t>(positives),
                          .valid_rows = valid_.size()},
                         options_.resume, state_);
}

absl::Status Trainer::StartStage() {
  const bool any_calibrated = std::any_of(spec_.blocks().begin(), spec_.blocks().end(),
                                          [](const BlockSpec& block) { return block.layers > 0 && block.calibrated; });
  if (stage().experts() && any_calibrated && !state_.calibrated) {
    const size_t rows = std::min(train_.size(), kCalibrationRows);
    std::vector<uint32_t> sample = RandomOrder(train_.size(), Random(config_.seed(), 0xCA11B));
    sample.resize(rows);
    SelectRows(train_, sample, &batch_, &labels_);
    CalibrateRouting(spec_, *registry_, batch_, *network_, state_.weights.data());
    state_.calibrated = true;
  }
  adam_->Reset();
  state_.epoch = state_.batch = 0;
  state_.rate_factor = 1;
  state_.evaluations_without_improvement = 0;
  state_.epoch_loss = 0;
  state_.interval = {};
  state_.best_weights = state_.weights;
  HILOMOE_ASSIGN_OR_RETURN(best_evaluation_,
                           Evaluate(spec_, Tensors(state_.weights), valid_, stage().experts(), *network_));
  state_.start_metric = state_.best_metric = MonitorValue(config_.monitor(), best_evaluation_.metrics);
  state_.started = true;
  std::fprintf(stderr, "stage %s: starts at valid %s\n", stage().name().c_str(),
               MetricsText(best_evaluation_.metrics).c_str());
  return evidence_.Evaluated(best_evaluation_, true, state_);
}

absl::Status Trainer::Step() {
  const double start = NowSeconds();
  const v1::Stage& stage = this->stage();
  const size_t n = train_.size(), size = config_.batch_size();
  // A single row left over has no batch statistics.
  const size_t batches = n % size == 1 && n > 1 ? n / size : (n + size - 1) / size;
  const size_t count = std::max<size_t>(batches, 1);
  if (const uint64_t key = state_.stage << 32 | state_.epoch; key != order_key_) {
    order_ = RandomOrder(n, Random(config_.seed(), 0x0BDE, state_.stage, state_.epoch));
    order_key_ = key;
  }
  if (progress_ == nullptr) {
    progress_ = std::make_unique<ProgressBar>(ProgressBar::Options{
        .label = absl::StrCat(stage.name(), " epoch ", state_.epoch + 1), .total = static_cast<int64_t>(n)});
  }
  const size_t begin = state_.batch * size, end = std::min(n, begin + size);
  SelectRows(train_, absl::MakeConstSpan(order_).subspan(begin, end - begin), &batch_, &labels_);
  logits_.resize(end - begin);

  const GroupRates rates = StageRates(stage, state_.rate_factor);
  const auto trains = [&](TensorGroup group) { return rates[static_cast<size_t>(group)] > 0; };
  const v1::Losses& losses = config_.losses();
  const double ramp =
      losses.ramp_steps() == 0 ? 1 : std::min(1.0, static_cast<double>(adam_->steps()) / losses.ramp_steps());
  const BackwardMode backward{.embedding = trains(TensorGroup::kEmbedding),
                              .backbone = trains(TensorGroup::kBackbone),
                              .experts = trains(TensorGroup::kExpert) || trains(TensorGroup::kRouter),
                              .head = trains(TensorGroup::kHead),
                              .losses = {.load_balance = ramp * losses.load_balance(),
                                         .router_z = ramp * losses.router_z(),
                                         .diversity = ramp * losses.diversity()}};
  const ForwardMode forward{.experts = stage.experts(),
                            .batch_statistics = backward.backbone,
                            .routing_sums = stage.experts(),
                            .dropout = true,
                            .dropout_seed = config_.seed(),
                            .step = state_.total_steps};
  const ModelTensors<const float> tensors = Tensors(state_.weights);
  const size_t dense = registry_->tensors()[registry_->gathered()].offset;
  std::fill(gradients_.begin() + static_cast<ptrdiff_t>(dense), gradients_.end(), 0.0F);
  network_->Forward(tensors, batch_, forward, absl::MakeSpan(logits_));
  const auto loss = network_->Backward(tensors, batch_, labels_, backward, registry_->Bind(spec_, gradients_.data()));
  const double norm =
      adam_->Step(rates, 1, gradients_.data(), network_->embedding().table_gradients(), state_.weights.data());
  if (!std::isfinite(norm) || !std::isfinite(loss.bce)) {
    progress_.reset();
    return absl::AbortedError(absl::StrFormat(
        "stage %s, epoch %d, batch %d: the loss is no longer finite (loss %g, gradient norm %g); lower the learning "
        "rate or clip gradients. The best checkpoint so far stands in '%s/checkpoint'",
        stage.name(), state_.epoch + 1, state_.batch + 1, loss.bce, norm, options_.output_dir));
  }
  if (backward.backbone) network_->UpdateStatistics(registry_->Bind(spec_, state_.weights.data()));

  state_.epoch_loss += loss.bce;
  ++state_.batch;
  ++state_.total_steps;
  const std::string text = absl::StrFormat("loss %.4f", state_.epoch_loss / static_cast<double>(state_.batch));
  progress_->Update(static_cast<int64_t>(end), text);
  HILOMOE_RETURN_IF_ERROR(evidence_.Step({.rows = end - begin,
                                          .loss = loss.bce,
                                          .routing_loss = loss.routing,
                                          .gradient_norm = norm,
                                          .seconds = NowSeconds() - start,
                                          .batches = count,
                                          .rates = rates},
                                         &state_));
  bool over = false;
  // Evaluation e of E comes after batch ceil(e * count / E), the last at the end of the epoch.
  const uint64_t E = stage.evaluations_per_epoch();
  const bool epoch_over = state_.batch == count;
  if (epoch_over) progress_->Finish(text);
  if (state_.batch * E / count != (state_.batch - 1) * E / count) HILOMOE_RETURN_IF_ERROR(EvaluateStage(&over));
  if (epoch_over) {
    progress_.reset();
    ++state_.epoch;
    state_.batch = 0;
    state_.epoch_loss = 0;
    over |= state_.epoch == stage.epochs();
  }
  return over ? EndStage() : absl::OkStatus();
}

absl::Status Trainer::EvaluateStage(bool* over) {
  HILOMOE_ASSIGN_OR_RETURN(Evaluation evaluation,
                           Evaluate(spec_, Tensors(state_.weights), valid_, stage().experts(), *network_));
  const double metric = MonitorValue(config_.monitor(), evaluation.metrics);
  const bool better = metric > state_.best_metric + kImprovement;
  std::fprintf(stderr, "  valid %s%s\n", MetricsText(evaluation.metrics).c_str(), better ? "  best" : "");
  if (better) {
    state_.best_metric = metric;
    state_.best_weights = state_.weights;
    state_.evaluations_without_improvement = 0;
    best_evaluation_ = std::move(evaluation);
    HILOMOE_RETURN_IF_ERROR(WriteBest(best_evaluation_, {}));
    return evidence_.Evaluated(best_evaluation_, true, state_);
  }
  state_.rate_factor *= stage().plateau_factor();
  HILOMOE_RETURN_IF_ERROR(evidence_.Evaluated(evaluation, false, state_));
  *over = ++state_.evaluations_without_improvement >= stage().patience();
  return absl::OkStatus();
}

absl::Status Trainer::EndStage() {
  progress_.reset();
  const bool improved = state_.best_metric > state_.start_metric + kImprovement;
  std::fprintf(stderr, "stage %s: %s\n%s", stage().name().c_str(),
               improved ? absl::StrCat("ends at valid ", MetricsText(best_evaluation_.metrics)).c_str()
                        : "never exceeded its start; undone",
               UtilisationText(best_evaluation_.utilisation).c_str());
  HILOMOE_RETURN_IF_ERROR(evidence_.StageEnded(best_evaluation_, improved, state_));
  state_.weights = state_.best_weights;
  ++state_.stage;
  state_.started = false;
  return absl::OkStatus();
}

absl::Status Trainer::Save() {
  state_.m = adam_->m();
  state_.v = adam_->v();
  state_.optimizer_steps = adam_->steps();
  HILOMOE_RETURN_IF_ERROR(evidence_.Save(&state_));
  return WriteTrainState(ResumePath(), config_, threads_, state_);
}

absl::Status Trainer::WriteBest(const Evaluation& evaluation, const std::map<std::string, double>& more) {
  Checkpoint checkpoint;
  checkpoint.config = config_;
  checkpoint.vocabularies = statistics_.vocabularies;
  checkpoint.weights = state_.best_weights;
  checkpoint.samples = statistics_.samples;
  checkpoint.utilisation = evaluation.utilisation;
  checkpoint.metrics = more;
  const auto add = [&](const char* name, const std::optional<double>& value) {
    if (value.has_value()) checkpoint.metrics[name] = *value;
  };
  add("valid.auc", evaluation.metrics.auc);
  add("valid.gauc", evaluation.metrics.grouped.gauc);
  add("valid.logloss", evaluation.metrics.logloss);
  return WriteCheckpoint(options_.output_dir + "/checkpoint", checkpoint);
}

absl::StatusOr<Evaluation> Trainer::EvaluateFinally(const std::string& split, const std::vector<std::string>& paths,
                                                    const Dataset& dataset) {
  // The checkpoint is the whole model, experts on: what is served.
  const ModelTensors<const float> tensors = Tensors(state_.weights);
  HILOMOE_ASSIGN_OR_RETURN(Evaluation evaluation, Evaluate(spec_, tensors, dataset, true, *network_));
  std::fprintf(stderr, "%s %s\n", split.c_str(), MetricsText(evaluation.metrics).c_str());
  HILOMOE_RETURN_IF_ERROR(evidence_.Final(split, paths, dataset, tensors, evaluation, *network_));
  return evaluation;
}

absl::Status Trainer::Finish() {
  HILOMOE_ASSIGN_OR_RETURN(const Evaluation valid,
                           EvaluateFinally("valid", InDirectory(options_.data_dir, config_.data().valid()), valid_));
  state_.best_weights = state_.weights;
  std::map<std::string, double> more;
  if (!config_.data().test().empty()) {
    const LogChunksOptions columns{config_.data().label(), config_.data().group_by(), true};
    const std::vector<std::string> paths = InDirectory(options_.data_dir, config_.data().test());
    HILOMOE_ASSIGN_OR_RETURN(const Dataset test, ReadDataset("test", paths, spec_, columns, encoder_->encoder()));
    HILOMOE_ASSIGN_OR_RETURN(const Evaluation evaluation, EvaluateFinally("test", paths, test));
    const BinaryMetrics& metrics = evaluation.metrics;
    if (metrics.auc.has_value()) more["test.auc"] = *metrics.auc;
    if (metrics.grouped.gauc.has_value()) more["test.gauc"] = *metrics.grouped.gauc;
    if (metrics.logloss.has_value()) more["test.logloss"] = *metrics.logloss;
  }
  const double seconds = evidence_.seconds();
  more["train.seconds"] = seconds;
  HILOMOE_RETURN_IF_ERROR(WriteBest(valid, more));
  HILOMOE_RETURN_IF_ERROR(evidence_.Finish(state_));
  std::error_code ignored;
  std::filesystem::remove_all(ResumePath(), ignored);
  std::fprintf(stderr, "checkpoint '%s/checkpoint' after %.0f s; see '%s/report.html'\n", options_.output_dir.c_str(),
               seconds, options_.output_dir.c_str());
  return absl::OkStatus();
}

}  // namespace

absl::Status Train(const TrainOptions& options) {
  v1::TrainingConfig config;
  HILOMOE_RETURN_IF_ERROR(ReadTrainingConfig(options.config_path, &config));
  if (options.seed != 0) config.set_seed(options.seed);
  HILOMOE_ASSIGN_OR_RETURN(ModelSpec spec, ModelSpec::Create(config.model()));
  std::error_code error;
  std::filesystem::create_directories(options.output_dir, error);
  if (error)
    return absl::InvalidArgumentError(absl::StrCat("cannot create '", options.output_dir, "': ", error.message()));
  Trainer trainer(options, std::move(config), std::move(spec));
  return trainer.Run();
}

}  // namespace hilomoe
