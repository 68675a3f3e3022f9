// Y = activation(X W^T + add + bias) with a constant W, packed once for the kernels of runtime/kernels.
#ifndef HILOMOE_RUNTIME_PACKED_PRODUCT_H_
#define HILOMOE_RUNTIME_PACKED_PRODUCT_H_

#include <cstddef>
#include <cstdint>

#include "model/stored_matrix.h"
#include "runtime/aligned_vector.h"
#include "runtime/kernels/kernels.h"

namespace hilomoe {

// Rows that are evaluated at once. 64 rows reuse each packed weight often enough to be bound by arithmetic, and
// their inputs and outputs (64 x 624 and 64 x 464 floats of the bench model, 272 KiB) stay in a 1 MiB L2.
inline constexpr int kTileRows = 64;

// Immutable; Run from any thread. A row's result has the same bits whatever its neighbours and their number.
class PackedProduct {
 public:
  // W: the columns [first_column, first_column + columns) of `weight`, or (transposed) of its transpose. Products take
  // place in the precision that the weight is stored in; the scales of a transposed int8 weight, one per column, are
  // multiplied into x before it is rounded. No columns are allowed. The weight is copied.
  PackedProduct(const StoredMatrix& weight, size_t first_column, size_t columns, bool transposed = false);
  PackedProduct(PackedProduct&&) = default;  // a copy would still read the original's weights

  int outputs() const { return weight_.layout.outputs; }
  const kernels::PackedWeight& weight() const { return weight_; }
  // What Run needs for up to kTileRows rows, aligned to 4.
  size_t scratchpad_bytes() const;
  size_t bytes() const { return cells_.size() * sizeof(uint32_t) + factor_.size() * sizeof(float); }  // held

  // x [rows, columns] (ldx), y [rows, outputs] (ldy), rows <= kTileRows; y and x do not overlap, store.add may be y.
  void Run(const kernels::Kernels& kernels, int rows, const float* x, int ldx, const kernels::ProductStore& store,
           float* y, int ldy, std::byte* scratchpad) const;

 private:
  int columns_;
  AlignedVector<uint32_t> cells_;
  AlignedVector<float> factor_;  // of x's columns; empty: 1
  kernels::PackedWeight weight_;
};

}  // namespace hilomoe

#endif  // HILOMOE_RUNTIME_PACKED_PRODUCT_H_
