// The input x of the network from encoded rows: embeddings, pooled embeddings, numbers; and the linear term.
#ifndef HILOMOE_RUNTIME_INPUT_GATHER_H_
#define HILOMOE_RUNTIME_INPUT_GATHER_H_

#include <cstddef>
#include <vector>

#include "model/encoded_batch.h"
#include "model/model_spec.h"
#include "model/stored_matrix.h"
#include "model/tensor_registry.h"
#include "runtime/kernels/kernels.h"

namespace hilomoe {

// What it is made from must outlive it. Const: any thread.
class InputGather {
 public:
  InputGather(const ModelSpec& spec, const FeatureTensors<const float>& tensors,
              const FeatureTensors<const StoredMatrix>& matrices, const kernels::Kernels& kernels);

  // Fetches the table rows that Features will read, so that their misses overlap with one another and with whatever is
  // done meanwhile.
  void Prefetch(const EncodedBatch& batch, bool context, size_t begin, int rows) const;
  // Writes the columns of all features of one scope, rows [begin, begin + rows) of that scope, to x [rows, D].
  void Features(const EncodedBatch& batch, bool context, size_t begin, int rows, float* x) const;
  // Adds the linear term of the features of one scope to out [rows].
  void AddLinear(const EncodedBatch& batch, bool context, size_t begin, int rows, float* out) const;
  // The embedding of a feature's i-th id, side by side with those of others: out [count, ld].
  void Ids(const EncodedBatch& batch, size_t f, size_t begin, size_t count, float* out, size_t ld) const;

 private:
  // What Prefetch knows of a feature with a table. These lie side by side and in the order in which they are read:
  // weights have pushed them out of L2 since the request before, and what a branch waits for would be waited for.
  struct Fetched {
    size_t feature;
    const std::byte* table;
    size_t row_bytes;
    bool pooled;
  };

  void Feature(const EncodedBatch& batch, size_t f, size_t begin, int rows, float* x) const;
  void AddRow(const StoredMatrix& table, size_t row, float* out) const;

  const ModelSpec& spec_;
  const FeatureTensors<const float>& tensors_;
  const FeatureTensors<const StoredMatrix>& matrices_;  // the tables
  const kernels::Kernels& kernels_;
  // Of candidates [0] and context [1].
  std::vector<size_t> features_[2];
  std::vector<Fetched> fetched_[2];
};

}  // namespace hilomoe

#endif  // HILOMOE_RUNTIME_INPUT_GATHER_H_
