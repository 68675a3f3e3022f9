#include "model/tensor_registry.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace hilomoe {

namespace {

std::string LinearName(const FeatureSpec& feature) { return absl::StrCat("linear.", feature.name, ".weight"); }

}  // namespace

std::string TableName(const TableSpec& table) { return absl::StrCat("embedding.", table.feature, ".weight"); }

StorageGroup StackedStorage(const BlockSpec& block) {
  return block.projected_query ? StorageGroup::kFloat32 : StorageGroup::kDense;
}

void TensorRegistry::Add(std::string name, std::vector<size_t> shape, TensorGroup group, StorageGroup storage) {
  TensorSpec tensor{std::move(name), std::move(shape), group, storage, size_, 1};
  for (const size_t extent : tensor.shape) tensor.size *= extent;
  size_ += tensor.size;
  tensors_.push_back(std::move(tensor));
}

void TensorRegistry::AddFeatures(const ModelSpec& spec, absl::Span<const uint32_t> table_rows) {
  for (size_t i = 0; i < spec.tables().size(); ++i) {
    Add(TableName(spec.tables()[i]), {table_rows[i], spec.tables()[i].width}, TensorGroup::kEmbedding,
        StorageGroup::kEmbeddings);
  }
  for (size_t f = 0; f < spec.features().size(); ++f) {
    const FeatureSpec& feature = spec.features()[f];
    const bool has_table = spec.is_linear(f) && feature.table >= 0;
    linear_table_.push_back(has_table ? static_cast<int>(tensors_.size()) : -1);
    if (has_table) Add(LinearName(feature), {table_rows[feature.table], 1}, TensorGroup::kEmbedding);
  }
  gathered_ = tensors_.size();
  for (const FeatureSpec& feature : spec.features()) {
    const std::string prefix = absl::StrCat("numeric.", feature.name);
    if (feature.is_number() && feature.width > 0) {
      Add(prefix + ".weight", {feature.width}, TensorGroup::kEmbedding);
    }
    if (feature.is_numeric() && feature.transform == v1::Numeric::STANDARDISE) {
      Add(prefix + ".standardise", {2}, TensorGroup::kStatistic);
    }
    if (feature.is_bucketed()) {
      Add(prefix + ".boundaries", {spec.tables()[feature.table].buckets - 1}, TensorGroup::kStatistic);
    }
  }
  for (size_t f = 0; f < spec.features().size(); ++f) {
    const FeatureSpec& feature = spec.features()[f];
    if (spec.is_linear(f) && feature.table < 0) Add(LinearName(feature), {1}, TensorGroup::kEmbedding);
  }
}

void TensorRegistry::AddHead(const ModelSpec& spec) {
  Add("head.weight", {spec.head_width()}, TensorGroup::kHead);
  Add("head.bias", {1}, TensorGroup::kHead);
}

TensorRegistry TensorRegistry::ForTraining(const ModelSpec& spec, absl::Span<const uint32_t> table_rows) {
  TensorRegistry registry;
  registry.AddFeatures(spec, table_rows);
  for (size_t i = 0; i < spec.attention().size(); ++i) {
    const AttentionSpec& attention = spec.attention()[i];
    const std::string prefix = absl::StrCat("attention.", i, ".");
    const size_t inner = attention.inner_width();
    registry.Add(prefix + "query.weight", {inner, attention.query_width}, TensorGroup::kBackbone);
    registry.Add(prefix + "key.weight", {inner, attention.history_width}, TensorGroup::kBackbone);
    registry.Add(prefix + "value.weight", {inner, attention.history_width}, TensorGroup::kBackbone);
    registry.Add(prefix + "output.weight", {attention.output_width, inner}, TensorGroup::kBackbone);
  }
  for (size_t i = 0; i < spec.blocks().size(); ++i) {
    const BlockSpec& block = spec.blocks()[i];
    const size_t L = block.layers, K = block.experts, D = block.input, O = block.width;
    const std::string prefix = spec.BlockName(i) + ".";
    registry.Add(prefix + "base.weight", {O, D}, TensorGroup::kBackbone);
    if (L > 0) registry.Add(prefix + "experts.V", {L, K, D}, TensorGroup::kExpert);
    registry.Add(prefix + "base.bias", {O}, TensorGroup::kBackbone);
    if (L > 0) {
      registry.Add(prefix + "experts.U", {L, K, O}, TensorGroup::kExpert);
      registry.Add(prefix + "router.alpha", {1}, TensorGroup::kRouter);
      registry.Add(prefix + "router.tau", {L}, TensorGroup::kRouter);
      registry.Add(prefix + "router.c", {L, K}, TensorGroup::kRouter);
    }
    if (block.projected_query) registry.Add(prefix + "router.query", {D, D}, TensorGroup::kRouter);
    if (block.batch_norm) {
      registry.Add(prefix + "norm.weight", {O}, TensorGroup::kBackbone);
      registry.Add(prefix + "norm.bias", {O}, TensorGroup::kBackbone);
      registry.Add(prefix + "norm.running_mean", {O}, TensorGroup::kStatistic);
      registry.Add(prefix + "norm.running_var", {O}, TensorGroup::kStatistic);
    }
    if (block.activation == v1::Block::DICE) {
      registry.Add(prefix + "dice.weight", {O}, TensorGroup::kBackbone);
      registry.Add(prefix + "dice.running_mean", {O}, TensorGroup::kStatistic);
      registry.Add(prefix + "dice.running_var", {O}, TensorGroup::kStatistic);
    }
  }
  registry.AddHead(spec);
  return registry;
}

TensorRegistry TensorRegistry::ForServing(const ModelSpec& spec, absl::Span<const uint32_t> table_rows) {
  TensorRegistry registry;
  registry.AddFeatures(spec, table_rows);
  for (size_t i = 0; i < spec.attention().size(); ++i) {
    const AttentionSpec& attention = spec.attention()[i];
    const std::string prefix = absl::StrCat("attention.", i, ".");
    const size_t pooled = attention.heads * attention.history_width;
    registry.Add(prefix + "score.weight", {pooled, attention.query_width}, TensorGroup::kDerived);
    registry.Add(prefix + "output.weight", {attention.output_width, pooled}, TensorGroup::kDerived);
  }
  for (size_t i = 0; i < spec.blocks().size(); ++i) {
    const BlockSpec& block = spec.blocks()[i];
    const size_t stack = block.stack();
    const std::string prefix = spec.BlockName(i) + ".";
    registry.Add(prefix + "stacked.weight", {block.stacked_rows(), block.input}, TensorGroup::kDerived,
                 StackedStorage(block));
    registry.Add(prefix + "bias", {block.width}, TensorGroup::kDerived);
    if (stack > 0) {
      registry.Add(prefix + "experts.U", {stack, block.width}, TensorGroup::kDerived, StorageGroup::kExperts);
      registry.Add(prefix + "router.gram", {stack, stack}, TensorGroup::kDerived);
      registry.Add(prefix + "router.alpha", {1}, TensorGroup::kRouter);
      registry.Add(prefix + "router.tau", {block.layers}, TensorGroup::kRouter);
      registry.Add(prefix + "router.c", {stack}, TensorGroup::kRouter);
    }
    if (block.activation == v1::Block::DICE) registry.Add(prefix + "dice", {3, block.width}, TensorGroup::kDerived);
  }
  registry.AddHead(spec);
  return registry;
}

}  // namespace hilomoe
