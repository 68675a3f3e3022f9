// Trained weights with the errors that storing them in fewer bits brings, for bounds on what is evaluated with them.
#ifndef HILOMOE_TESTS_RUNTIME_STORED_WEIGHTS_H_
#define HILOMOE_TESTS_RUNTIME_STORED_WEIGHTS_H_

#include <algorithm>
#include <cmath>
#include <vector>

#include "model/reference.h"
#include "tests/runtime/served_model.h"

namespace hilomoe {

// Batch norm's factor of output o.
inline double BatchNormFactor(const BlockSpec& block, const BlockTensors<const float>& tensors, size_t o) {
  if (!block.batch_norm) return 1;
  return tensors.gamma[o] / std::sqrt(static_cast<double>(tensors.running_variance[o]) + kBatchNormEpsilon);
}

// What storing in `precision` may change a row by: uniform within half a step.
inline void AddStorageError(Precision precision, size_t n, Rounded* row) {
  double largest = 0;
  for (size_t i = 0; i < n; ++i) largest = std::max(largest, std::fabs(row[i].value));
  for (size_t i = 0; i < n && precision != Precision::kFloat32; ++i) {
    const double most = precision == Precision::kBfloat16 ? 0x1p-8 * row[i].value : largest / 254;
    row[i].variance += most * most / 3;
  }
}

// The trained weights, each with the variance of the error that storing it brings (of tables, W0, V and U; U's as it
// is after batch norm was folded into it).
inline std::vector<Rounded> WeightsAsStored(const ModelSpec& spec, const TensorRegistry& training,
                                            const std::vector<float>& weights, const StoragePrecision& precision) {
  std::vector<Rounded> arena(weights.begin(), weights.end());
  const auto plain = training.Bind<const float>(spec, weights.data());
  const auto out = training.Bind<Rounded>(spec, arena.data());
  for (size_t t = 0; t < training.tensors().size(); ++t) {
    const TensorSpec& tensor = training.tensors()[t];
    if (tensor.storage != StorageGroup::kEmbeddings) continue;
    const size_t width = tensor.shape[1];
    for (size_t r = 0; r < tensor.shape[0]; ++r) {
      AddStorageError(precision.embeddings, width, &arena[tensor.offset + r * width]);
    }
  }
  for (size_t b = 0; b < spec.blocks().size(); ++b) {
    const BlockSpec& block = spec.blocks()[b];
    const size_t D = block.input, O = block.width;
    const Precision dense = precision.Of(StackedStorage(block));
    for (size_t o = 0; o < O; ++o) AddStorageError(dense, D, out.blocks[b].base_weight + o * D);
    for (size_t i = 0; i < block.stack(); ++i) {
      AddStorageError(dense, D, out.blocks[b].v + i * D);
      Rounded* u = out.blocks[b].u + i * O;
      std::vector<Rounded> folded(O);
      for (size_t o = 0; o < O; ++o) folded[o] = Rounded(BatchNormFactor(block, plain.blocks[b], o) * u[o].value);
      AddStorageError(precision.experts, O, folded.data());
      for (size_t o = 0; o < O; ++o) {
        const double a = BatchNormFactor(block, plain.blocks[b], o);
        if (a != 0) u[o].variance += folded[o].variance / (a * a);
      }
    }
  }
  return arena;
}

}  // namespace hilomoe

#endif  // HILOMOE_TESTS_RUNTIME_STORED_WEIGHTS_H_
