// The weights that a training begins with.
#ifndef HILOMOE_TOOLS_TRAIN_STARTING_WEIGHTS_H_
#define HILOMOE_TOOLS_TRAIN_STARTING_WEIGHTS_H_

#include <string>

#include "absl/status/statusor.h"
#include "hilomoe/v1/training_config.pb.h"
#include "model/model_spec.h"
#include "model/tensor_registry.h"
#include "tools/train/log_statistics.h"
#include "tools/train/warm_start.h"

namespace hilomoe {

// Fills `weights`, a zeroed arena of `registry` (ForTraining): random numbers of the config's seed, the log's numeric
// statistics, and over them what `warm_start` (may be null; read from `warm_start_path`) brings, of which it tells on
// stderr. Returns whether routing is calibrated already, by experts trained before.
//
// FAILED_PRECONDITION when such experts would be served without having been evaluated: the last stage has them off.
absl::StatusOr<bool> StartingWeights(const v1::TrainingConfig& config, const ModelSpec& spec,
                                     const TensorRegistry& registry, const LogStatistics& statistics,
                                     const WarmStart* warm_start, const std::string& warm_start_path, float* weights);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_STARTING_WEIGHTS_H_
