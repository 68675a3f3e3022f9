// What of a stage changes with its steps.
#ifndef HILOMOE_TOOLS_TRAIN_SCHEDULE_H_
#define HILOMOE_TOOLS_TRAIN_SCHEDULE_H_

#include <cstddef>
#include <cstdint>
#include <utility>

#include "hilomoe/v1/training_config.pb.h"
#include "model/model_spec.h"

namespace hilomoe {

// How often stage `index` goes over its rows, at most.
uint64_t StageEpochs(const v1::TrainingConfig& config, size_t index);

// What the learning rates are multiplied with in step `step` (from 0) of `total`: linear warm-up, then decay.
double ScheduleFactor(const v1::Stage& stage, uint64_t step, uint64_t total);

// How many experts a layer keeps in step `step`: from all of them linearly down to the block's top_k. 0 = all.
size_t AnnealedTopK(const BlockSpec& block, const v1::Stage& stage, uint64_t step);

// Of the batches >= 1 of a pass, those that stage `index` trains on: all, or its share of the one pass.
std::pair<uint64_t, uint64_t> StageBatches(const v1::TrainingConfig& config, size_t index, uint64_t batches);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_SCHEDULE_H_
