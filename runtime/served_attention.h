// Target attention as it is served: see ServingAttentionTensors.
#ifndef HILOMOE_RUNTIME_SERVED_ATTENTION_H_
#define HILOMOE_RUNTIME_SERVED_ATTENTION_H_

#include <cstddef>
#include <memory>

#include "model/encoded_batch.h"
#include "model/model_spec.h"
#include "model/tensor_registry.h"
#include "runtime/aligned_vector.h"
#include "runtime/input_gather.h"
#include "runtime/kernels/kernels.h"
#include "runtime/packed_product.h"

namespace hilomoe {

// Immutable; what it is made from must outlive it.
class ServedAttention {
 public:
  ServedAttention(const ModelSpec& spec, size_t index, const ServingAttentionTensors<const StoredMatrix>& matrices);

  size_t bytes() const { return score_.bytes() + output_.bytes(); }  // of its copies of weights

  // The buffers of one thread.
  class Runner {
   public:
    // x [kTileRows, D]: Run writes the attention's columns of it.
    Runner(const ServedAttention& attention, const InputGather& gather, const kernels::Kernels& kernels, float* x);
    // A shared context: its history, once per request, before Run.
    void PrepareContext(const EncodedBatch& batch);
    // Candidate rows [begin, begin + rows), rows <= kTileRows. `context`, this runner or another one of the attention,
    // has had PrepareContext and is only read.
    void Run(const EncodedBatch& batch, size_t begin, int rows, const Runner& context);

   private:
    void LoadHistory(const EncodedBatch& batch, size_t row);

    const ServedAttention& attention_;
    const InputGather& gather_;
    const kernels::Kernels& kernels_;
    int positions_ = 0;
    AlignedVector<float> history_, transposed_, scores_;  // [max length, dk], [dk, max length], [max length]
    AlignedVector<float> query_, projected_, pooled_;     // [kTileRows, dq], [kTileRows, heads * dk] twice
    float* x_;
  };

 private:
  bool SharesHistory(const EncodedBatch& batch) const;
  size_t pooled_width() const { return attention_.heads * attention_.history_width; }

  const ModelSpec& spec_;
  const AttentionSpec& attention_;
  const PackedProduct score_, output_;
};

}  // namespace hilomoe

#endif  // HILOMOE_RUNTIME_SERVED_ATTENTION_H_
