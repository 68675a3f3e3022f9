#include "tools/train/warm_start.h"

#include <algorithm>
#include <cmath>
#include <unordered_set>
#include <utility>

#include "absl/strings/match.h"
#include "model/status_macros.h"

#define XXH_INLINE_ALL
#include "xxhash.h"

namespace hilomoe {
namespace {

template <typename Id>
void GrowIds(const std::vector<Id>& old, size_t most, std::vector<Id>* ids) {
  const std::unordered_set<Id> known(old.begin(), old.end());
  std::vector<Id> grown = old;
  for (const Id& id : *ids) {
    if (most > 0 && grown.size() >= most) break;
    if (known.count(id) == 0) grown.push_back(id);
  }
  *ids = std::move(grown);
}

}  // namespace

WarmStart::WarmStart(Checkpoint checkpoint, ModelSpec spec)
    : checkpoint_(std::move(checkpoint)),
      spec_(std::move(spec)),
      registry_(TensorRegistry::ForTraining(spec_, checkpoint_.TableRows(spec_))) {
  XXH3_state_t state;
  XXH3_64bits_reset(&state);
  for (const VocabularyIds& ids : checkpoint_.vocabularies) {
    XXH3_64bits_update(&state, ids.int64s.data(), ids.int64s.size() * sizeof(int64_t));
    for (const std::string& id : ids.strings) XXH3_64bits_update(&state, id.c_str(), id.size() + 1);
  }
  for (const TensorSpec& tensor : registry_.tensors()) {
    if (!absl::StartsWith(tensor.name, "numeric.") || tensor.group != TensorGroup::kStatistic) continue;
    XXH3_64bits_update(&state, &checkpoint_.weights[tensor.offset], tensor.size * sizeof(float));
  }
  fingerprint_ = XXH3_64bits_digest(&state);
}

absl::StatusOr<WarmStart> WarmStart::Read(const std::string& checkpoint) {
  HILOMOE_ASSIGN_OR_RETURN(Checkpoint read, ReadCheckpoint(checkpoint));
  HILOMOE_ASSIGN_OR_RETURN(ModelSpec spec, ModelSpec::Create(read.config.model()));
  return WarmStart(std::move(read), std::move(spec));
}

void WarmStart::Grow(const ModelSpec& spec, LogStatistics* statistics) const {
  for (size_t i = 0; i < spec.tables().size(); ++i) {
    const TableSpec& table = spec.tables()[i];
    for (size_t j = 0; j < spec_.tables().size(); ++j) {
      const TableSpec& old = spec_.tables()[j];
      if (old.feature != table.feature || old.id_type != table.id_type || !table.has_vocabulary()) continue;
      GrowIds(checkpoint_.vocabularies[j].int64s, table.max_size, &statistics->vocabularies[i].int64s);
      GrowIds(checkpoint_.vocabularies[j].strings, table.max_size, &statistics->vocabularies[i].strings);
    }
  }
  const auto old = registry_.Bind<const float>(spec_, checkpoint_.weights.data()).features;
  for (size_t f = 0; f < spec.features().size(); ++f) {
    const int was = spec_.FindFeature(spec.features()[f].name);
    if (was < 0) continue;
    const auto take = [was](const std::vector<const float*>& from, std::vector<float>* to) {
      if (from[was] != nullptr) std::copy_n(from[was], to->size(), to->begin());
    };
    if (old.standardise[was] != nullptr) take(old.standardise, &statistics->standardise[f]);
    const FeatureSpec& before = spec_.features()[was];
    if (before.is_bucketed() && spec_.tables()[before.table].buckets == statistics->boundaries[f].size() + 1) {
      take(old.boundaries, &statistics->boundaries[f]);
    }
  }
}

WarmStart::Copied WarmStart::CopyWeights(const ModelSpec& spec, const TensorRegistry& registry, float* weights) const {
  Copied copied;
  for (size_t i = 0; i < registry.tensors().size(); ++i) {
    const TensorSpec& to = registry.tensors()[i];
    const auto from = std::find_if(registry_.tensors().begin(), registry_.tensors().end(),
                                   [&](const TensorSpec& tensor) { return tensor.name == to.name; });
    const bool gathered = i < registry.gathered();
    const bool fits =
        from != registry_.tensors().end() &&
        (from->shape == to.shape || (gathered && from->shape[1] == to.shape[1] && from->shape[0] <= to.shape[0]));
    if (!fits) {
      copied.fresh.push_back(to.name);
      continue;
    }
    const float* values = &checkpoint_.weights[from->offset];
    std::copy_n(values, from->size, weights + to.offset);
    ++copied.tensors;
    if (absl::EndsWith(to.name, "experts.U")) {
      copied.routing |= std::any_of(values, values + from->size, [](float u) { return u != 0; });
    }
  }
  // The checkpoint's bias is the served one.
  const bool has_bias = std::find(copied.fresh.begin(), copied.fresh.end(), "head.bias") == copied.fresh.end();
  if (has_bias) {
    *registry.Bind(spec, weights).head_bias -= std::log(checkpoint_.config.data().negative_keep_rate());
  }
  return copied;
}

}  // namespace hilomoe
