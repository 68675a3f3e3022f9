// Reading and checking a training config.
#ifndef HILOMOE_TOOLS_TRAIN_TRAINING_CONFIG_H_
#define HILOMOE_TOOLS_TRAIN_TRAINING_CONFIG_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "hilomoe/v1/training_config.pb.h"
#include "model/model_spec.h"
#include "tools/train/optimizer.h"

namespace hilomoe {

// Reads `path` and checks every value: errors name file, line and field.
absl::Status ReadTrainingConfig(const std::string& path, v1::TrainingConfig* config);
// The same check of a config that did not come from a file of its own; a FieldError.
absl::Status CheckTrainingConfig(const v1::TrainingConfig& config);

// The config as one textproto, every run of the same config the same bytes.
std::string ConfigText(const v1::TrainingConfig& config);

// Learning rates of a stage: `factor` (of the plateau) times the stage's, never below its minimum.
GroupRates StageRates(const v1::Stage& stage, double factor);

// `paths` under `directory`, but for absolute ones.
std::vector<std::string> InDirectory(const std::string& directory,
                                     const google::protobuf::RepeatedPtrField<std::string>& paths);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_TRAINING_CONFIG_H_
