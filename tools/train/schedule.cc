#include "tools/train/schedule.h"

#include <algorithm>
#include <cmath>

namespace hilomoe {

uint64_t StageEpochs(const v1::TrainingConfig& config, size_t index) {
  return config.one_pass() ? 1 : config.stages(static_cast<int>(index)).epochs();
}

double ScheduleFactor(const v1::Stage& stage, uint64_t step, uint64_t total) {
  const uint64_t warmup = stage.warmup_steps();
  if (step < warmup) return static_cast<double>(step + 1) / static_cast<double>(warmup);
  if (stage.decay() == v1::Stage::CONSTANT || total <= warmup) return 1;
  const double done = std::min(1.0, static_cast<double>(step - warmup) / static_cast<double>(total - warmup));
  const double left = stage.decay() == v1::Stage::LINEAR ? 1 - done : (1 + std::cos(M_PI * done)) / 2;
  return stage.final_rate() + (1 - stage.final_rate()) * left;
}

size_t AnnealedTopK(const BlockSpec& block, const v1::Stage& stage, uint64_t step) {
  const uint64_t steps = stage.top_k_anneal_steps();
  if (block.top_k == 0 || step >= steps) return block.top_k;
  const double dropped = static_cast<double>(block.experts - block.top_k) * static_cast<double>(step + 1);
  const size_t kept = block.experts - static_cast<size_t>(dropped / static_cast<double>(steps));
  return kept < block.experts ? kept : 0;
}

std::pair<uint64_t, uint64_t> StageBatches(const v1::TrainingConfig& config, size_t index, uint64_t batches) {
  if (!config.one_pass()) return {0, batches};
  double before = 0;
  for (size_t i = 0; i < index; ++i) before += config.stages(static_cast<int>(i)).share();
  const double after = before + config.stages(static_cast<int>(index)).share();
  const auto batch = [batches](double share) {
    return static_cast<uint64_t>(std::llround(std::min(1.0, share) * static_cast<double>(batches)));
  };
  // At least one, so that every stage trains.
  const uint64_t begin = std::min(batch(before), batches - 1);
  return {begin, std::max(batch(after), begin + 1)};
}

}  // namespace hilomoe
