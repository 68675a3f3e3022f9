// What a training run leaves as evidence: it writes metrics.jsonl (run_log.h) while training goes on, and report.html
// from it whenever a stage is over.
#ifndef HILOMOE_TOOLS_TRAIN_EVIDENCE_H_
#define HILOMOE_TOOLS_TRAIN_EVIDENCE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hilomoe/v1/training_config.pb.h"
#include "model/model_spec.h"
#include "model/tensor_registry.h"
#include "tools/train/evaluation.h"
#include "tools/train/optimizer.h"
#include "tools/train/run_log.h"
#include "tools/train/train_state.h"

namespace hilomoe {

// An expert whose mean score is below this part of an even share (1 / K) is dead.
inline constexpr double kDeadShare = 0.01;

// What is known before the first step.
struct RunFacts {
  const v1::TrainingConfig* config = nullptr;
  const ModelSpec* spec = nullptr;
  const TensorRegistry* registry = nullptr;
  int threads = 0;
  size_t train_rows = 0, train_positives = 0, valid_rows = 0;
};

// A training step, as it just ended.
struct StepFacts {
  size_t rows = 0;
  double loss = 0, routing_loss = 0, gradient_norm = 0;
  double seconds = 0;    // of the step alone
  uint64_t batches = 0;  // of an epoch
  GroupRates rates{};
};

// One thread. Every event is written before the call returns; `state` tells stage, epoch and step. Errors are those of
// the files.
class Evidence {
 public:
  Evidence() = default;
  // Begins, or with `resume` goes on with, output_dir/metrics.jsonl.
  absl::Status Start(const std::string& output_dir, const RunFacts& facts, bool resume, const TrainState& state);

  // Adds to the interval's sums in `state` and writes them some twenty times an epoch, every 500 batches at least.
  // After state.batch and total_steps have been counted up.
  absl::Status Step(const StepFacts& step, TrainState* state);
  absl::Status Evaluated(const Evaluation& evaluation, bool best, const TrainState& state);
  absl::Status StageEnded(const Evaluation& kept_evaluation, bool kept, const TrainState& state);
  // The split's last evaluation, `rows` being the rows of `paths` in their order. Evaluates once more with routing
  // fixed, and prints what routing is worth.
  absl::Status Final(const std::string& split, const std::vector<std::string>& paths, const RowCache& rows,
                     const ModelTensors<const float>& tensors, const Evaluation& evaluation, Network<float>& network);
  absl::Status Finish(const TrainState& state);

  // For the state: fills in what Start needs to go on.
  absl::Status Save(TrainState* state);
  double seconds() const;  // training time of all processes of the run

 private:
  std::string output_dir_;
  RunFacts facts_;
  RunLog log_;
  double epoch_start_ = 0;  // steady clock, less what earlier processes took
};

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_EVIDENCE_H_
