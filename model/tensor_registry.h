// The one list of a model's tensors: names, shapes, groups, order. Trainer, checkpoint, converter and runtime all read
// it, so that they cannot disagree.
#ifndef HILOMOE_MODEL_TENSOR_REGISTRY_H_
#define HILOMOE_MODEL_TENSOR_REGISTRY_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "model/model_spec.h"

namespace hilomoe {

enum class TensorGroup {
  kEmbedding,  // tables and numeric vectors, those of the linear term as well
  kBackbone,   // base weights and biases, batch norm's gamma and beta, Dice's a, attention
  kExpert,     // V, U
  kRouter,     // alpha, tau, c, Wq
  kHead,
  kStatistic,  // measured, not learned: running mean and variance, numeric transforms
  kDerived,    // serving only: computed by the converter
};

// Tensors whose precision in a model file is chosen together; all others are float32.
enum class StorageGroup {
  kFloat32,
  kEmbeddings,  // tables
  kDense,       // stacked weights of blocks
  kExperts,     // U
};

// Of a block's stacked weight. The projections V Wq of a LINEAR query are rounded apart from V and Wq, which the bounds
// of golden rows cannot follow: such a block stays float32.
StorageGroup StackedStorage(const BlockSpec& block);

// A float32 tensor; `offset` counts floats in the arena that holds them all.
struct TensorSpec {
  std::string name;
  std::vector<size_t> shape;
  TensorGroup group;
  StorageGroup storage = StorageGroup::kFloat32;
  size_t offset = 0;
  size_t size = 0;
};

// Pointers to one block's tensors; a tensor that the block lacks is null.
template <typename T>
struct BlockTensors {
  T* base_weight = nullptr;  // W0 [O, D]; V follows it directly, so that [W0; V] is one [O + L*K, D] matrix
  T* v = nullptr;            // [L, K, D]
  T* base_bias = nullptr;    // b [O]
  T* u = nullptr;            // [L, K, O]
  T* alpha = nullptr;        // [1]
  T* tau = nullptr;          // [L]
  T* c = nullptr;            // [L, K]
  T* query = nullptr;        // Wq [D, D]
  T* gamma = nullptr;        // [O], as are all that follow
  T* beta = nullptr;
  T* running_mean = nullptr;
  T* running_variance = nullptr;
  T* dice = nullptr;  // a
  T* dice_mean = nullptr;
  T* dice_variance = nullptr;
};

// dq, dk: widths of query and history; inner = heads * head_width.
template <typename T>
struct AttentionTensors {
  T* query = nullptr;   // Wq [inner, dq]
  T* key = nullptr;     // Wk [inner, dk]
  T* value = nullptr;   // Wv [inner, dk]
  T* output = nullptr;  // Wo [output width, inner]
};

// Pointers to the tensors that turn features into x; indices as in ModelSpec.
template <typename T>
struct FeatureTensors {
  std::vector<T*> tables;          // per table [rows, width]
  std::vector<T*> numeric_weight;  // per feature [width], or null
  std::vector<T*> standardise;     // per feature [2]: mean, 1 / deviation; or null
  std::vector<T*> boundaries;      // per feature [buckets - 1], ascending; or null
  std::vector<T*> linear;          // per feature [rows of its table], of a number [1]; or null
};

template <typename T>
struct ModelTensors {
  FeatureTensors<T> features;
  std::vector<AttentionTensors<T>> attention;
  std::vector<BlockTensors<T>> blocks;
  T* head_weight = nullptr;  // [head_width]
  T* head_bias = nullptr;    // [1]
};

// One block as it is served: batch norm folded into weight, bias and u; W0, V and (projected_query) V Wq stacked; the
// Gram matrix computed.
template <typename T>
struct ServingBlockTensors {
  T* stacked_weight = nullptr;  // [O + L*K, D] or [O + 2*L*K, D]
  T* bias = nullptr;            // [O]
  T* u = nullptr;               // [L*K, O]
  T* gram = nullptr;            // [L*K, L*K]
  T* alpha = nullptr;           // [1]
  T* tau = nullptr;             // [L]
  T* c = nullptr;               // [L*K]
  T* dice = nullptr;            // [3, O]: mean, 1 / deviation, a
};

// Attention as it is served: the projections of history positions drop out of both products.
template <typename T>
struct ServingAttentionTensors {
  T* score = nullptr;   // per head Wk^T Wq / sqrt(head width): [heads * dk, dq]
  T* output = nullptr;  // per head Wo Wv: [output width, heads * dk]
};

template <typename T>
struct ServingTensors {
  FeatureTensors<T> features;
  std::vector<ServingAttentionTensors<T>> attention;
  std::vector<ServingBlockTensors<T>> blocks;
  T* head_weight = nullptr;
  T* head_bias = nullptr;
};

class TensorRegistry {
 public:
  // What is trained and stands in weights.safetensors. table_rows: per table of the spec.
  static TensorRegistry ForTraining(const ModelSpec& spec, absl::Span<const uint32_t> table_rows);
  // What stands in model.hilomoe, the vocabularies aside.
  static TensorRegistry ForServing(const ModelSpec& spec, absl::Span<const uint32_t> table_rows);

  const std::vector<TensorSpec>& tensors() const { return tensors_; }
  size_t size() const { return size_; }  // floats of all tensors
  // The list starts with the tables that rows are gathered from, [rows, width] each: those of spec.tables(), then those
  // of the linear term.
  size_t gathered() const { return gathered_; }
  // Index of feature f's table of the linear term; -1 when it has none.
  int LinearTable(size_t f) const { return linear_table_[f]; }

  // Pointers for an arena of size() elements (ForTraining).
  template <typename T>
  ModelTensors<T> Bind(const ModelSpec& spec, T* arena) const;
  // Pointers for one pointer a tensor, in the order of tensors() (ForServing).
  template <typename T>
  ServingTensors<T> BindServing(const ModelSpec& spec, const std::vector<T*>& data) const;

 private:
  void Add(std::string name, std::vector<size_t> shape, TensorGroup group,
           StorageGroup storage = StorageGroup::kFloat32);
  void AddFeatures(const ModelSpec& spec, absl::Span<const uint32_t> table_rows);
  void AddHead(const ModelSpec& spec);

  std::vector<TensorSpec> tensors_;
  std::vector<int> linear_table_;
  size_t gathered_ = 0;
  size_t size_ = 0;
};

// "embedding.<feature>.weight"
std::string TableName(const TableSpec& table);

// ---- implementation of the templates ----

namespace registry_internal {

// Walks the tensors in the order of the list; both binders ask in the order in which the list was made.
template <typename T>
class Cursor {
 public:
  explicit Cursor(const std::vector<T*>& data) : next_(data.begin()) {}
  T* Take(bool present) { return present ? *next_++ : nullptr; }

 private:
  typename std::vector<T*>::const_iterator next_;
};

template <typename T>
FeatureTensors<T> TakeFeatures(const ModelSpec& spec, Cursor<T>& cursor) {
  FeatureTensors<T> out;
  for (size_t i = 0; i < spec.tables().size(); ++i) out.tables.push_back(cursor.Take(true));
  for (size_t f = 0; f < spec.features().size(); ++f) {
    out.linear.push_back(cursor.Take(spec.is_linear(f) && spec.features()[f].table >= 0));
  }
  for (const FeatureSpec& feature : spec.features()) {
    out.numeric_weight.push_back(cursor.Take(feature.is_number() && feature.width > 0));
    out.standardise.push_back(cursor.Take(feature.is_numeric() && feature.transform == v1::Numeric::STANDARDISE));
    out.boundaries.push_back(cursor.Take(feature.is_bucketed()));
  }
  for (size_t f = 0; f < spec.features().size(); ++f) {
    if (spec.is_linear(f) && spec.features()[f].table < 0) out.linear[f] = cursor.Take(true);
  }
  return out;
}

}  // namespace registry_internal

template <typename T>
ModelTensors<T> TensorRegistry::Bind(const ModelSpec& spec, T* arena) const {
  std::vector<T*> data;
  for (const TensorSpec& tensor : tensors_) data.push_back(arena + tensor.offset);
  registry_internal::Cursor<T> cursor(data);
  ModelTensors<T> out;
  out.features = registry_internal::TakeFeatures(spec, cursor);
  for (size_t i = 0; i < spec.attention().size(); ++i) {
    AttentionTensors<T>& tensors = out.attention.emplace_back();
    tensors.query = cursor.Take(true);
    tensors.key = cursor.Take(true);
    tensors.value = cursor.Take(true);
    tensors.output = cursor.Take(true);
  }
  for (const BlockSpec& block : spec.blocks()) {
    const bool experts = block.layers > 0, dice = block.activation == v1::Block::DICE;
    BlockTensors<T>& tensors = out.blocks.emplace_back();
    tensors.base_weight = cursor.Take(true);
    tensors.v = cursor.Take(experts);
    tensors.base_bias = cursor.Take(true);
    tensors.u = cursor.Take(experts);
    tensors.alpha = cursor.Take(experts);
    tensors.tau = cursor.Take(experts);
    tensors.c = cursor.Take(experts);
    tensors.query = cursor.Take(block.projected_query);
    tensors.gamma = cursor.Take(block.batch_norm);
    tensors.beta = cursor.Take(block.batch_norm);
    tensors.running_mean = cursor.Take(block.batch_norm);
    tensors.running_variance = cursor.Take(block.batch_norm);
    tensors.dice = cursor.Take(dice);
    tensors.dice_mean = cursor.Take(dice);
    tensors.dice_variance = cursor.Take(dice);
  }
  out.head_weight = cursor.Take(true);
  out.head_bias = cursor.Take(true);
  return out;
}

template <typename T>
ServingTensors<T> TensorRegistry::BindServing(const ModelSpec& spec, const std::vector<T*>& data) const {
  registry_internal::Cursor<T> cursor(data);
  ServingTensors<T> out;
  out.features = registry_internal::TakeFeatures(spec, cursor);
  for (size_t i = 0; i < spec.attention().size(); ++i) {
    ServingAttentionTensors<T>& tensors = out.attention.emplace_back();
    tensors.score = cursor.Take(true);
    tensors.output = cursor.Take(true);
  }
  for (const BlockSpec& block : spec.blocks()) {
    const bool experts = block.layers > 0;
    ServingBlockTensors<T>& tensors = out.blocks.emplace_back();
    tensors.stacked_weight = cursor.Take(true);
    tensors.bias = cursor.Take(true);
    tensors.u = cursor.Take(experts);
    tensors.gram = cursor.Take(experts);
    tensors.alpha = cursor.Take(experts);
    tensors.tau = cursor.Take(experts);
    tensors.c = cursor.Take(experts);
    tensors.dice = cursor.Take(block.activation == v1::Block::DICE);
  }
  out.head_weight = cursor.Take(true);
  out.head_bias = cursor.Take(true);
  return out;
}

}  // namespace hilomoe

#endif  // HILOMOE_MODEL_TENSOR_REGISTRY_H_
