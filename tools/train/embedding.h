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

// x, one row per candidate. T is float or double.
template <typename T>
class Embedding {
 public:
  Embedding(const ModelSpec& spec, const std::vector<uint32_t>& table_rows, Parallel& parallel);

  // x [B, D], overwritten.
  void Forward(const FeatureTensors<const T>& tensors, const EncodedBatch& batch, T* x);
  // Of flat rows (context_rows = candidate_rows): dx [B, D] -> table_gradients() (which start anew) and `gradients` of
  // the numeric vectors (added to).
  void Backward(const EncodedBatch& batch, const T* dx, const FeatureTensors<T>& gradients);

  std::vector<TableGradient<T>>& table_gradients() { return table_gradients_; }

 private:
  void ForwardFeature(const FeatureTensors<const T>& tensors, const EncodedBatch& batch, size_t f, size_t begin,
                      size_t end, T* x) const;
  void Scatter(const EncodedBatch& batch, const T* dx, size_t f, size_t part, size_t parts);
  T* Row(size_t table, uint32_t row, size_t part);

  const ModelSpec& spec_;
  Parallel& parallel_;
  std::vector<TableGradient<T>> table_gradients_;
};

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_EMBEDDING_H_
