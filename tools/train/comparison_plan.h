// What a comparison file asks for: arms, their trials as whole training configs, seeds.
#ifndef HILOMOE_TOOLS_TRAIN_COMPARISON_PLAN_H_
#define HILOMOE_TOOLS_TRAIN_COMPARISON_PLAN_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "hilomoe/v1/comparison.pb.h"
#include "hilomoe/v1/training_config.pb.h"

namespace hilomoe {

struct ComparisonTrial {
  std::string name;
  v1::TrainingConfig config;  // as it is trained: without data.test, so that training cannot look at it; seed unset
};

struct ComparisonArm {
  std::string name;
  bool control = false;
  std::string curve{};                  // of which the arm is a size; empty: of none
  std::vector<ComparisonTrial> trials;  // at least one

  size_t Find(std::string_view trial) const;  // trials.size() when there is none
};

struct ComparisonPlan {
  std::string title;
  std::vector<std::string> notes;
  std::vector<ComparisonArm> arms;  // of the file, in its order
  std::vector<uint64_t> seeds;      // all differ
  size_t selection_seeds = 0;       // the first so many
  v1::TrainingConfig::Monitor monitor = v1::TrainingConfig::AUC;
  size_t judged = 0, flops_reference = 0;  // indices of arms
  v1::Data data;                           // valid, test, label and group_by, the same for every arm
  uint32_t resamples = 0;
  uint64_t bootstrap_seed = 0;
};

// Errors name the comparison's file, line and field, and what is wrong in a training config by its own.
absl::StatusOr<ComparisonPlan> ReadComparison(const std::string& path);

// Lays `overrides` over *config: given values replace, messages merge, given repeated fields replace the whole list.
void ApplyOverrides(const google::protobuf::Message& overrides, google::protobuf::Message* config);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_COMPARISON_PLAN_H_
