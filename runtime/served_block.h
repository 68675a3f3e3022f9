// One block as it is served: the stacked product, routing, experts, bias and activation.
#ifndef HILOMOE_RUNTIME_SERVED_BLOCK_H_
#define HILOMOE_RUNTIME_SERVED_BLOCK_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "model/model_spec.h"
#include "model/stored_matrix.h"
#include "model/tensor_registry.h"
#include "runtime/aligned_vector.h"
#include "runtime/kernels/kernels.h"
#include "runtime/packed_product.h"

namespace hilomoe {

// The first `split` columns of its input belong to the context: their part of the product (and of |x|^2) can be
// computed once and shared by all candidates. Immutable; what it is made from must outlive it.
class ServedBlock {
 public:
  // `matrices`: the stacked weight and U. ldx: from one row of the input to the next.
  ServedBlock(const BlockSpec& block, const ServingBlockTensors<const float>& tensors,
              const ServingBlockTensors<const StoredMatrix>& matrices, size_t split, size_t ldx);
  size_t scratchpad_bytes() const;
  size_t bytes() const;  // of its copies of weights
  // From one row of a Runner's output to the next: whole cache lines.
  size_t output_ld() const { return static_cast<size_t>(ldz_); }

  // The buffers of one thread, for tiles of kTileRows rows.
  class Runner {
   public:
    // context_x, x [kTileRows, ldx]: the inputs of RunContext (first `split` columns) and Run (the others).
    Runner(const ServedBlock& block, const kernels::Kernels& kernels, const float* context_x, const float* x,
           std::byte* scratchpad);
    void RunContext(int rows);
    // Row r takes the context of row r * context_step of `context`, this runner or another one of the block, which is
    // only read: 0 when all share one. routing_scores receives the scores s [rows, L*K] where it is not null; nothing
    // else depends on it.
    void Run(int rows, int context_step, const Runner& context, float* routing_scores = nullptr);
    float* output() { return z_.data(); }  // [rows, width], leading dimension output_ld()

   private:
    const float* InverseNorm(int rows, int context_step, const Runner& context);

    const ServedBlock& block_;
    const kernels::Kernels& kernels_;
    const float* context_x_;
    const float* x_;
    std::byte* scratchpad_;
    AlignedVector<float> z_, context_z_;  // [rows, ldz]: base output, A, R
    AlignedVector<float> inverse_norm_, context_squared_norm_;
    AlignedVector<float> gated_;   // [rows, L*k] of top-k routing
    AlignedVector<int32_t> kept_;  // [rows, L*k]
  };

 private:
  const BlockSpec& spec_;
  const ServingBlockTensors<const float>& tensors_;
  const int split_, ldx_, ldz_;
  std::unique_ptr<const PackedProduct> context_;  // null when split = 0
  const PackedProduct candidate_;                 // of the other columns, or none
  std::unique_ptr<const PackedProduct> experts_;  // U of dense routing
  AlignedVector<float> kept_u_;                   // U [L*K, O] of top-k routing
  AlignedVector<float> gram_;                     // kernels::Routing's
  kernels::Routing routing_{};
};

}  // namespace hilomoe

#endif  // HILOMOE_RUNTIME_SERVED_BLOCK_H_
