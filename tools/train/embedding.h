// The input of the network: gathering x from encoded rows, and the gradients of tables and numeric vectors.
#ifndef HILOMOE_TOOLS_TRAIN_EMBEDDING_H_
#define HILOMOE_TOOLS_TRAIN_EMBEDDING_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "model/encoded_batch.h"
#include "model/model_spec.h"
#include "model/tensor_registry.h"
#include "tools/train/parallel.h"

namespace hilomoe {

// The gradient of one table, of the rows that a batch touched.
template <typename T>
struct TableGradient {
  // One part a thread; a row always belongs to the same part: part = row % parts.
  struct Part {
    std::vector<uint32_t> rows;  // in the order in which the batch touched them
    std::vector<T> values;       // [rows.size(), width]
  };
  std::vector<Part> parts;
  std::vector<int32_t> slot;  // per table row: its place in its part; -1 = not touched
};

// A gradient of feature f's embeddings that does not come through its slice of x: [n, width] with leading dimension ld,
// one row per row of the batch or, of a pooled feature, per id.
template <typename T>
struct EmbeddingGradient {
  size_t feature = 0;
  const T* values = nullptr;
  size_t ld = 0;
};

// x and the linear term, one row per candidate; all but attention's slices of x. T is float or double.
template <typename T>
class Embedding {
 public:
  // registry: ForTraining. Both outlive it.
  Embedding(const ModelSpec& spec, const TensorRegistry& registry, Parallel& parallel);

  // x [B, D], overwritten.
  void Forward(const FeatureTensors<const T>& tensors, const EncodedBatch& batch, T* x);
  // Adds the linear term of rows [begin, end) to logits [B].
  void AddLinear(const FeatureTensors<const T>& tensors, const EncodedBatch& batch, size_t begin, size_t end,
                 T* logits) const;
  // Of flat rows (context_rows = candidate_rows): dx [B, D], dlogits [B] and `more` -> table_gradients() (which start
  // anew) and `gradients` of the numeric vectors (added to).
  void Backward(const EncodedBatch& batch, const T* dx, const T* dlogits, const std::vector<EmbeddingGradient<T>>& more,
                const FeatureTensors<T>& gradients);

  // In the order of the registry's gathered() tensors.
  std::vector<TableGradient<T>>& table_gradients() { return table_gradients_; }

 private:
  // The rows of `table` that belong to one part, while they are added to.
  class Rows;
  void ForwardFeature(const FeatureTensors<const T>& tensors, const EncodedBatch& batch, size_t f, size_t begin,
                      size_t end, T* x) const;
  void Scatter(const EncodedBatch& batch, const T* dx, const T* dlogits, size_t f, size_t part);
  void ScatterMore(const EncodedBatch& batch, const EmbeddingGradient<T>& more, size_t part);
  void BackwardNumber(const EncodedBatch& batch, const T* dx, const T* dlogits, size_t f,
                      const FeatureTensors<T>& gradients) const;

  const ModelSpec& spec_;
  const TensorRegistry& registry_;
  Parallel& parallel_;
  std::vector<TableGradient<T>> table_gradients_;
};

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_EMBEDDING_H_
