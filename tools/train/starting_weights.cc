#include "tools/train/starting_weights.h"

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tools/train/initialize.h"

namespace hilomoe {

absl::StatusOr<bool> StartingWeights(const v1::TrainingConfig& config, const ModelSpec& spec,
                                     const TensorRegistry& registry, const LogStatistics& statistics,
                                     const WarmStart* warm_start, const std::string& warm_start_path, float* weights) {
  InitializeWeights(spec, registry, config.seed(), config.optimizer().embedding_init_deviation(), weights);
  const ModelTensors<float> tensors = registry.Bind(spec, weights);
  for (size_t f = 0; f < spec.features().size(); ++f) {
    std::copy(statistics.standardise[f].begin(), statistics.standardise[f].end(), tensors.features.standardise[f]);
    std::copy(statistics.boundaries[f].begin(), statistics.boundaries[f].end(), tensors.features.boundaries[f]);
  }
  if (warm_start == nullptr) return false;
  const WarmStart::Copied copied = warm_start->CopyWeights(spec, registry, weights);
  const v1::Stage& last = config.stages(config.stages_size() - 1);
  if (copied.routing && !last.experts()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "'", warm_start_path, "' brings trained experts, and the last stage, '", last.name(),
        "', has them off: what is served would not be what was evaluated; end with a stage that has experts on, or "
        "take the experts out of the network"));
  }
  std::fprintf(stderr, "warm start: %zu tensors from '%s'%s%s\n", copied.tensors, warm_start_path.c_str(),
               copied.fresh.empty() ? "" : "; new: ", absl::StrJoin(copied.fresh, ", ").c_str());
  return copied.routing;
}

}  // namespace hilomoe
