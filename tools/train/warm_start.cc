#include "tools/train/warm_start.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>
#include <unordered_set>
#include <utility>
#include <vector>

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

int WarmStart::OldTable(const ModelSpec& spec, size_t i) const {
  const TableSpec& table = spec.tables()[i];
  const auto found = std::find_if(spec_.tables().begin(), spec_.tables().end(),
                                  [&](const TableSpec& old) { return old.feature == table.feature; });
  const bool same = found != spec_.tables().end() && found->id_type == table.id_type &&
                    found->hash_buckets == table.hash_buckets && found->buckets == table.buckets;
  return same ? static_cast<int>(found - spec_.tables().begin()) : -1;
}

bool WarmStart::GoesOn(const ModelSpec& spec, const TensorRegistry& registry, size_t i) const {
  if (i < spec.tables().size()) return OldTable(spec, i) >= 0;
  // Of the linear term: a feature's own weights for the rows of the table that it reads.
  for (size_t f = 0; f < spec.features().size(); ++f) {
    if (registry.LinearTable(f) != static_cast<int>(i)) continue;
    const int was = spec_.FindFeature(spec.features()[f].name);
    const int table = OldTable(spec, static_cast<size_t>(spec.features()[f].table));
    return was >= 0 && table >= 0 && spec_.features()[static_cast<size_t>(was)].table == table;
  }
  return false;
}

bool WarmStart::SameInput(const ModelSpec& spec) const {
  const auto parts = [](const ModelSpec& of) {
    std::vector<std::tuple<size_t, std::string, size_t, v1::Feature::Kind, v1::Numeric::Transform>> parts;
    for (const FeatureSpec& feature : of.features()) {
      if (feature.input_width == 0) continue;
      parts.emplace_back(feature.input_offset, feature.name, feature.input_width, feature.kind, feature.transform);
    }
    std::sort(parts.begin(), parts.end());
    return parts;
  };
  return spec.input_width() == spec_.input_width() && parts(spec) == parts(spec_);
}

void WarmStart::Grow(const ModelSpec& spec, LogStatistics* statistics) const {
  for (size_t i = 0; i < spec.tables().size(); ++i) {
    const TableSpec& table = spec.tables()[i];
    const int old = OldTable(spec, i);
    if (old < 0 || !table.has_vocabulary()) continue;
    const VocabularyIds& ids = checkpoint_.vocabularies[static_cast<size_t>(old)];
    GrowIds(ids.int64s, table.max_size, &statistics->vocabularies[i].int64s);
    GrowIds(ids.strings, table.max_size, &statistics->vocabularies[i].strings);
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
  const bool same_input = SameInput(spec);
  const auto reads_input = [&](const std::string& name) {
    for (size_t b = 0; b < spec.blocks().size(); ++b) {
      if (spec.is_first(b) && absl::StartsWith(name, spec.BlockName(b) + ".")) return true;
    }
    return spec.blocks().empty() && name == "head.weight";
  };
  for (size_t i = 0; i < registry.tensors().size(); ++i) {
    const TensorSpec& to = registry.tensors()[i];
    const auto from = std::find_if(registry_.tensors().begin(), registry_.tensors().end(),
                                   [&](const TensorSpec& tensor) { return tensor.name == to.name; });
    const bool found = from != registry_.tensors().end();
    // A table has grown by the rows of new ids.
    const bool fits =
        found && (i < registry.gathered() ? GoesOn(spec, registry, i) && from->shape[1] == to.shape[1]
                                          : from->shape == to.shape && (same_input || !reads_input(to.name)));
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
