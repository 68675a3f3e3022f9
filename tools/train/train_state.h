// Where a run stands: all that, beside config and data, its continuation depends on.
#ifndef HILOMOE_TOOLS_TRAIN_TRAIN_STATE_H_
#define HILOMOE_TOOLS_TRAIN_TRAIN_STATE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hilomoe/v1/training_config.pb.h"
#include "tools/train/run_log.h"

namespace hilomoe {

// Sums over the batches since the latest line of progress in metrics.jsonl.
struct ProgressSums {
  uint64_t batches = 0, rows = 0;
  double loss = 0, routing_loss = 0, gradient_norm = 0, gradient_norm_max = 0, seconds = 0;
};

struct TrainState {
  // Place: the next batch to train is number `batch` of `epoch` of `stage`.
  uint64_t stage = 0;
  uint64_t epoch = 0;
  uint64_t batch = 0;
  uint64_t total_steps = 0;  // of all stages; keys the dropout
  uint64_t data_fingerprint = 0;
  // Of the stage.
  bool started = false;  // its starting metric was measured
  uint64_t optimizer_steps = 0;
  uint64_t evaluations_without_improvement = 0;
  double rate_factor = 1;
  double start_metric = 0;
  double best_metric = 0;
  double epoch_loss = 0;  // sums over the batches of the epoch so far
  bool calibrated = false;
  // Of the evidence.
  ProgressSums interval;
  RunLogMark run_log;
  double seconds = 0;  // trained so far
  std::vector<float> weights, best_weights;
  std::vector<float> m, v;  // of the optimizer
};

// Atomic; `directory` is replaced.
absl::Status WriteTrainState(const std::string& directory, const v1::TrainingConfig& config, int threads,
                             const TrainState& state);

struct SavedRun {
  int threads = 0;
  TrainState state;
};
// FAILED_PRECONDITION when the saved run has another config.
absl::StatusOr<SavedRun> ReadTrainState(const std::string& directory, const v1::TrainingConfig& config);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_TRAIN_STATE_H_
