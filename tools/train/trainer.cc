#include "tools/train/trainer.h"

#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "model/checkpoint.h"
#include "model/file_io.h"
#include "model/flops.h"
#include "model/status_macros.h"
#include "runtime/cpu_count.h"
#include "tools/common/progress_bar.h"
#include "tools/train/batch_source.h"
#include "tools/train/evaluation.h"
#include "tools/train/evidence.h"
#include "tools/train/initialize.h"
#include "tools/train/log_cache.h"
#include "tools/train/memory_plan.h"
#include "tools/train/network.h"
#include "tools/train/optimizer.h"
#include "tools/train/parallel.h"
#include "tools/train/random.h"
#include "tools/train/schedule.h"
#include "tools/train/slices.h"
#include "tools/train/starting_weights.h"
#include "tools/train/train_state.h"
#include "tools/train/training_config.h"
#include "tools/train/warm_start.h"

namespace hilomoe {
namespace {

constexpr double kImprovement = 1e-6;
constexpr size_t kCalibrationRows = 4096;
constexpr uint64_t kCalibrationStage = 0xCA11B;  // no stage: an order of rows of its own

double NowSeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

absl::Status CheckTrainingRows(const RowCache& train) {
  if (train.rows() < 2) return absl::InvalidArgumentError("one training row is too few");
  const size_t positives = train.index().positives();
  if (positives == 0 || positives == train.rows()) {
    return absl::InvalidArgumentError(absl::StrCat("every training label is ", positives > 0, "; nothing to learn"));
  }
  if (!(train.index().weight_sum() > 0)) {
    return absl::InvalidArgumentError("every training row has weight 0; nothing to learn");
  }
  return absl::OkStatus();
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
    if (options_.last_step_over) options_.last_step_over();
    return Finish();
  }

 private:
  const v1::Stage& stage() const { return config_.stages(static_cast<int>(state_.stage)); }
  std::string ResumePath() const { return options_.output_dir + "/resume"; }
  ModelTensors<const float> Tensors(const std::vector<float>& weights) const {
    return registry_->Bind<const float>(spec_, weights.data());
  }

  // While it lives, the head's bias is the one that is evaluated and served: with negatives kept at rate w the trained
  // logit is too high by -ln w.
  class ServedBias {
   public:
    ServedBias(const Trainer& trainer, std::vector<float>* weights)
        : bias_(*trainer.registry_->Bind(trainer.spec_, weights->data()).head_bias), trained_(bias_) {
      bias_ += std::log(trainer.config_.data().negative_keep_rate());
    }
    ~ServedBias() { bias_ = trained_; }
    ServedBias(const ServedBias&) = delete;
    ServedBias& operator=(const ServedBias&) = delete;

   private:
    float& bias_;
    const float trained_;
  };

  absl::Status Prepare();
  bool StateFits() const;
  absl::Status StartStage();
  absl::Status Step();
  absl::Status EvaluateStage(bool* over);
  absl::Status EndStage();
  absl::Status Save();
  absl::Status WriteBest(const Evaluation& evaluation, const std::map<std::string, double>& more);
  absl::StatusOr<Evaluation> EvaluateRows(std::vector<float>* weights, const RowCache& rows, bool experts);
  absl::StatusOr<Evaluation> EvaluateFinally(const std::string& split, const std::vector<std::string>& paths,
                                             const RowCache& rows);
  absl::Status Finish();

  const TrainOptions options_;
  const v1::TrainingConfig config_;
  const ModelSpec spec_;
  int threads_ = 1;
  std::optional<LogCache> logs_;
  std::optional<RowCache> valid_;
  BatchSource::Options batch_options_;
  std::unique_ptr<BatchSource> batches_;
  std::unique_ptr<TensorRegistry> registry_;
  std::unique_ptr<Parallel> parallel_;
  std::unique_ptr<Network<float>> network_;
  std::unique_ptr<Adam> adam_;
  TrainState state_;
  Evaluation best_evaluation_;
  Evidence evidence_;

  // Of the step under way; kept to reuse memory.
  std::vector<float> logits_;
  std::vector<size_t> top_k_;  // per block
  // An arena of the registry of which only the dense part is ever touched, so that the tables' part takes no memory.
  std::unique_ptr<float[], decltype(&std::free)> gradients_{nullptr, &std::free};
  std::unique_ptr<ProgressBar> progress_;
};

absl::Status Trainer::Prepare() {
  const v1::Data& data = config_.data();
  const LogChunksOptions columns{.label = data.label(), .group_by = data.group_by(), .weight = data.weight()};
  // A missing test log should not be noticed when training is over.
  for (const std::string& path : InDirectory(options_.data_dir, data.test())) {
    HILOMOE_RETURN_IF_ERROR(
        LogChunks::Open({path}, spec_, {.label = columns.label, .group_by = columns.group_by}).status());
  }
  for (const auto& logs : {data.valid(), data.test()}) {
    HILOMOE_RETURN_IF_ERROR(
        CheckSliceColumns(InDirectory(options_.data_dir, logs), {data.slices().begin(), data.slices().end()}));
  }
  const std::string cache_dir = options_.cache_dir.empty() ? options_.output_dir + "/cache" : options_.cache_dir;
  std::optional<WarmStart> warm_start;
  if (!options_.warm_start.empty()) {
    HILOMOE_ASSIGN_OR_RETURN(warm_start, WarmStart::Read(options_.warm_start));
  }
  HILOMOE_ASSIGN_OR_RETURN(logs_,
                           LogCache::Open(spec_, {cache_dir, columns, InDirectory(options_.data_dir, data.train()),
                                                  warm_start.has_value() ? &*warm_start : nullptr}));
  HILOMOE_ASSIGN_OR_RETURN(valid_, logs_->Rows("valid", InDirectory(options_.data_dir, data.valid())));
  const RowCache& train = logs_->training_rows();
  HILOMOE_RETURN_IF_ERROR(CheckTrainingRows(train));
  const uint64_t fingerprint = Mix(train.fingerprint()) + valid_->fingerprint();
  // What counting and encoding took in small pieces goes back to the system.
  ::malloc_trim(0);
  registry_ = std::make_unique<TensorRegistry>(
      TensorRegistry::ForTraining(spec_, TableRows(spec_, logs_->statistics().vocabularies)));
  threads_ = options_.threads > 0 ? options_.threads : UsableCpuCount();
  if (options_.resume) {
    HILOMOE_ASSIGN_OR_RETURN(SavedRun saved, ReadTrainState(ResumePath(), config_));
    state_ = std::move(saved.state);
    threads_ = saved.threads;
    if (state_.data_fingerprint != fingerprint) {
      return absl::FailedPreconditionError(absl::StrCat(
          "'", ResumePath(), "' was saved with other training or validation logs; train without --resume"));
    }
  } else {
    state_.data_fingerprint = fingerprint;
    state_.weights.assign(registry_->size(), 0);
    HILOMOE_ASSIGN_OR_RETURN(state_.calibrated, StartingWeights(config_, spec_, *registry_, logs_->statistics(),
                                                                warm_start.has_value() ? &*warm_start : nullptr,
                                                                options_.warm_start, state_.weights.data()));
  }
  parallel_ = std::make_unique<Parallel>(threads_);
  network_ = std::make_unique<Network<float>>(spec_, *registry_, *parallel_);
  adam_ = std::make_unique<Adam>(config_.optimizer(), *registry_, *parallel_);
  if (options_.resume && !StateFits()) {
    return absl::DataLossError(
        absl::StrCat("'", ResumePath(), "' is of another size than the model; train without --resume"));
  }
  if (options_.resume && state_.started) {
    adam_->m() = std::move(state_.m);
    adam_->v() = std::move(state_.v);
    adam_->steps() = state_.optimizer_steps;
    HILOMOE_ASSIGN_OR_RETURN(best_evaluation_, EvaluateRows(&state_.best_weights, *valid_, stage().experts()));
  }
  gradients_.reset(static_cast<float*>(std::calloc(registry_->size(), sizeof(float))));
  if (gradients_ == nullptr) return absl::ResourceExhaustedError("no memory for the gradients");
  batch_options_ = {.seed = config_.seed(),
                    .batch_rows = config_.batch_size(),
                    .buffer_bytes = size_t{data.shuffle_buffer_mib()} << 20};
  const double positives = static_cast<double>(train.index().positives());
  std::fprintf(stderr, "%zu training rows (%.2f %% positive), %zu validation rows, %d threads\n", train.rows(),
               100.0 * positives / static_cast<double>(train.rows()), valid_->rows(), threads_);
  const MemoryPlan plan = PredictMemory(spec_, *registry_, adam_->m_size() + adam_->v_size(),
                                        logs_->statistics().vocabularies, train, *valid_, batch_options_, threads_);
  std::fprintf(stderr, "memory: about %s; so far %zu MiB\n", plan.Text().c_str(), PeakResidentBytes() >> 20);
  std::fprintf(stderr, "%zu parameters; FLOPs: %s\n", registry_->size(), FlopsText(CountFlops(spec_)).c_str());
  return evidence_.Start(options_.output_dir,
                         {.config = &config_,
                          .spec = &spec_,
                          .registry = registry_.get(),
                          .threads = threads_,
                          .train_rows = train.rows(),
                          .train_positives = static_cast<size_t>(positives),
                          .valid_rows = valid_->rows()},
                         options_.resume, state_);
}

// Whether what was saved is as large as the model.
bool Trainer::StateFits() const {
  const size_t n = registry_->size();
  return state_.weights.size() == n &&
         (!state_.started || (state_.best_weights.size() == n && state_.m.size() == adam_->m_size() &&
                              state_.v.size() == adam_->v_size()));
}

absl::Status Trainer::StartStage() {
  const bool any_calibrated = std::any_of(spec_.blocks().begin(), spec_.blocks().end(),
                                          [](const BlockSpec& block) { return block.layers > 0 && block.calibrated; });
  if (stage().experts() && any_calibrated && !state_.calibrated) {
    batches_.reset();  // not two buffers at once
    BatchSource::Options options = batch_options_;
    options.batch_rows = kCalibrationRows;
    BatchSource source(logs_->training_rows(), options);
    HILOMOE_ASSIGN_OR_RETURN(const LabelledRows* sample, source.Get(kCalibrationStage, 0, 0));
    CalibrateRouting(spec_, *registry_, sample->encoded, *network_, state_.weights.data());
    state_.calibrated = true;
  }
  adam_->Reset();
  state_.epoch = state_.batch = 0;
  state_.rate_factor = 1;
  state_.evaluations_without_improvement = 0;
  state_.epoch_loss = 0;
  state_.interval = {};
  state_.best_weights = state_.weights;
  HILOMOE_ASSIGN_OR_RETURN(best_evaluation_, EvaluateRows(&state_.weights, *valid_, stage().experts()));
  state_.start_metric = state_.best_metric = MonitorValue(config_.monitor(), best_evaluation_.metrics);
  if (std::isinf(state_.start_metric)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the validation log gives no ", v1::TrainingConfig::Monitor_Name(config_.monitor()),
                     config_.monitor() == v1::TrainingConfig::GAUC ? ": no group holds both labels"
                                                                   : ": all its labels are the same",
                     "; take another log or monitor: LOGLOSS"));
  }
  state_.started = true;
  std::fprintf(stderr, "stage %s: starts at valid %s\n", stage().name().c_str(),
               MetricsText(best_evaluation_.metrics).c_str());
  return evidence_.Evaluated(best_evaluation_, true, state_);
}

absl::Status Trainer::Step() {
  const double start = NowSeconds();
  const v1::Stage& stage = this->stage();
  const size_t n = logs_->training_rows().rows();
  if (batches_ == nullptr) batches_ = std::make_unique<BatchSource>(logs_->training_rows(), batch_options_);
  const auto [first, last] = StageBatches(config_, state_.stage, batches_->batches());
  const uint64_t count = last - first, batch = first + state_.batch;
  const uint64_t epochs = StageEpochs(config_, state_.stage);
  // One pass is one order of rows, whatever the stage.
  HILOMOE_ASSIGN_OR_RETURN(const LabelledRows* rows,
                           batches_->Get(config_.one_pass() ? 0 : state_.stage, state_.epoch, batch));
  if (progress_ == nullptr) {
    progress_ = std::make_unique<ProgressBar>(ProgressBar::Options{
        .label = absl::StrCat(stage.name(), " epoch ", state_.epoch + 1), .total = static_cast<int64_t>(n)});
  }
  logits_.resize(rows->size());

  const double schedule = state_.rate_factor * ScheduleFactor(stage, adam_->steps(), epochs * count);
  const GroupRates rates = StageRates(stage, schedule);
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
  top_k_.clear();
  for (const BlockSpec& block : spec_.blocks()) top_k_.push_back(AnnealedTopK(block, stage, adam_->steps()));
  const ForwardMode forward{.experts = stage.experts(),
                            .batch_statistics = backward.backbone,
                            .routing_sums = stage.experts(),
                            .bfloat16 = config_.product_precision() == v1::TrainingConfig::BFLOAT16,
                            .dropout = true,
                            .dropout_seed = config_.seed(),
                            .step = state_.total_steps,
                            .top_k = top_k_};
  const ModelTensors<const float> tensors = Tensors(state_.weights);
  const size_t dense = registry_->tensors()[registry_->gathered()].offset;
  std::fill(gradients_.get() + dense, gradients_.get() + registry_->size(), 0.0F);
  network_->Forward(tensors, rows->encoded, forward, absl::MakeSpan(logits_));
  const auto loss = network_->Backward(tensors, rows->encoded, rows->labels, rows->weights, backward,
                                       registry_->Bind(spec_, gradients_.get()));
  const double norm =
      adam_->Step(rates, schedule, gradients_.get(), network_->embedding().table_gradients(), state_.weights.data());
  if (!std::isfinite(norm) || !std::isfinite(loss.bce)) {
    progress_.reset();
    const std::string checkpoint = options_.output_dir + "/checkpoint";
    return absl::AbortedError(absl::StrFormat(
        "stage %s, epoch %d, batch %d: the loss is no longer finite (loss %g, gradient norm %g); lower the learning "
        "rate or clip gradients%s",
        stage.name(), state_.epoch + 1, state_.batch + 1, loss.bce, norm,
        std::filesystem::exists(checkpoint) ? absl::StrCat("; '", checkpoint, "' is what was best before") : ""));
  }
  if (backward.backbone) network_->UpdateStatistics(registry_->Bind(spec_, state_.weights.data()));

  state_.epoch_loss += loss.bce;
  ++state_.batch;
  ++state_.total_steps;
  const std::string text = absl::StrFormat("loss %.4f", state_.epoch_loss / static_cast<double>(state_.batch));
  progress_->Update(static_cast<int64_t>(std::min(n, (batch + 1) * config_.batch_size())), text);
  HILOMOE_RETURN_IF_ERROR(evidence_.Step({.rows = rows->size(),
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
    over |= state_.epoch == epochs;
  }
  return over ? EndStage() : absl::OkStatus();
}

absl::Status Trainer::EvaluateStage(bool* over) {
  HILOMOE_ASSIGN_OR_RETURN(Evaluation evaluation, EvaluateRows(&state_.weights, *valid_, stage().experts()));
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
               UtilisationText(spec_, best_evaluation_.utilisation).c_str());
  HILOMOE_RETURN_IF_ERROR(evidence_.StageEnded(best_evaluation_, improved, state_));
  state_.weights = state_.best_weights;
  ++state_.stage;
  state_.started = false;
  return absl::OkStatus();
}

absl::Status Trainer::Save() {
  state_.optimizer_steps = adam_->steps();
  HILOMOE_RETURN_IF_ERROR(evidence_.Save(&state_));
  // Lent, not copied: they are as large as the model.
  state_.m.swap(adam_->m());
  state_.v.swap(adam_->v());
  const absl::Status status = WriteTrainState(ResumePath(), config_, threads_, state_);
  state_.m.swap(adam_->m());
  state_.v.swap(adam_->v());
  return status;
}

absl::Status Trainer::WriteBest(const Evaluation& evaluation, const std::map<std::string, double>& more) {
  Checkpoint checkpoint;
  checkpoint.config = config_;
  checkpoint.samples = logs_->statistics().samples;
  checkpoint.utilisation = evaluation.utilisation;
  checkpoint.metrics = more;
  const auto add = [&](const char* name, const std::optional<double>& value) {
    if (value.has_value()) checkpoint.metrics[name] = *value;
  };
  add("valid.auc", evaluation.metrics.auc);
  add("valid.gauc", evaluation.metrics.grouped.gauc);
  add("valid.logloss", evaluation.metrics.logloss);
  const ServedBias served(*this, &state_.best_weights);
  // Lent, not copied: they are as large as the model.
  checkpoint.vocabularies.swap(logs_->statistics().vocabularies);
  checkpoint.weights.swap(state_.best_weights);
  const absl::Status status = WriteCheckpoint(options_.output_dir + "/checkpoint", checkpoint);
  checkpoint.vocabularies.swap(logs_->statistics().vocabularies);
  checkpoint.weights.swap(state_.best_weights);
  return status;
}

absl::StatusOr<Evaluation> Trainer::EvaluateRows(std::vector<float>* weights, const RowCache& rows, bool experts) {
  const ServedBias served(*this, weights);
  HILOMOE_ASSIGN_OR_RETURN(Evaluation evaluation, Evaluate(spec_, Tensors(*weights), rows, experts, *network_));
  evaluation.rows = {};
  return evaluation;
}

absl::StatusOr<Evaluation> Trainer::EvaluateFinally(const std::string& split, const std::vector<std::string>& paths,
                                                    const RowCache& rows) {
  // The checkpoint is the whole model, experts on: what is served.
  const ServedBias served(*this, &state_.weights);
  const ModelTensors<const float> tensors = Tensors(state_.weights);
  HILOMOE_ASSIGN_OR_RETURN(Evaluation evaluation, Evaluate(spec_, tensors, rows, true, *network_));
  std::fprintf(stderr, "%s %s\n", split.c_str(), MetricsText(evaluation.metrics).c_str());
  HILOMOE_RETURN_IF_ERROR(evidence_.Final(split, paths, rows, tensors, evaluation, *network_));
  evaluation.rows = {};
  return evaluation;
}

absl::Status Trainer::Finish() {
  batches_.reset();
  HILOMOE_ASSIGN_OR_RETURN(const Evaluation valid,
                           EvaluateFinally("valid", InDirectory(options_.data_dir, config_.data().valid()), *valid_));
  state_.best_weights = state_.weights;
  std::map<std::string, double> more;
  if (!config_.data().test().empty()) {
    const std::vector<std::string> paths = InDirectory(options_.data_dir, config_.data().test());
    HILOMOE_ASSIGN_OR_RETURN(const RowCache test, logs_->Rows("test", paths));
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
  std::fprintf(stderr, "checkpoint '%s/checkpoint' after %.0f s, %zu MiB at the peak; see '%s/report.html'\n",
               options_.output_dir.c_str(), seconds, PeakResidentBytes() >> 20, options_.output_dir.c_str());
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
  // Of runs that were killed while they wrote; each is as large as the model.
  for (const char* name : {"checkpoint", "resume"}) RemoveLeftovers(absl::StrCat(options.output_dir, "/", name));
  Trainer trainer(options, std::move(config), std::move(spec));
  return trainer.Run();
}

}  // namespace hilomoe
