// Training: the stages of a config run one after another, each with early stopping, resumable at any step.
#ifndef HILOMOE_TOOLS_TRAIN_TRAINER_H_
#define HILOMOE_TOOLS_TRAIN_TRAINER_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hilomoe/v1/training_config.pb.h"

namespace hilomoe {

struct TrainOptions {
  std::string config_path;
  std::string data_dir = ".";
  std::string output_dir;    // checkpoint/ and resume/ are written here
  std::string cache_dir;     // encoded logs, see LogCache; empty: output_dir/cache
  std::string warm_start;    // a checkpoint to go on from, on another log; a resumed run needs it again
  bool resume = false;       // continue what output_dir/resume holds
  int threads = 0;           // 0: as many as this process may use; a resumed run keeps its number
  uint64_t seed = 0;         // 0: the config's
  double save_every_s = 60;  // how much work a kill may cost
  // Asked before every step, on the calling thread; true: save and return CANCELLED. A signal handler must not run on
  // that thread (see Gemm).
  std::function<bool()> stop_requested;
  // Called when no step is left: the final evaluations, which parse the test log, ask nobody any more.
  std::function<void()> last_step_over;
};

// Reads the data (or its cache), trains, writes output_dir/checkpoint whenever the monitored metric improves and at the
// end, with the test metrics. Progress and results go to stderr. For a seed and a number of threads the result is the
// same to the bit, interrupted and resumed or not. Errors: INVALID_ARGUMENT for config and data, naming file, line and
// field or column; CANCELLED when stopped (the state is saved); ABORTED when the loss is no longer finite (the best
// checkpoint so far stands).
absl::Status Train(const TrainOptions& options);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_TRAINER_H_
