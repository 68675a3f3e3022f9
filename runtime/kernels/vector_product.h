// Products with packed weights, over an operation D of one precision on one instruction set:
//   D::V            the vector type of vector_common.h
//   D::Sum, Zero    kLanes running sums: float, or int32 of int8's
//   D::X, Spread    a cell of x in every lane
//   D::W, Load      kLanes cells of weights
//   D::Step         sum + x w, over the columns of a cell
//   D::kInteger     whether the sums are int32
// and the tile's shape, explained where set: kRows, kPanels of many rows; kFewPanels of one or two.
//
// Every sum is one chain in ascending order of columns, whatever the tile it falls into: so tiles can be changed, and
// batches split, without changing a bit.
#ifndef HILOMOE_RUNTIME_KERNELS_VECTOR_PRODUCT_H_
#define HILOMOE_RUNTIME_KERNELS_VECTOR_PRODUCT_H_

#include <cstdint>

#include "runtime/kernels/kernels.h"
#include "runtime/kernels/vector_common.h"

namespace hilomoe::kernels {

// A row smaller than this counts as zero: 127 over it would overflow.
constexpr float kSmallestMagnitude = 0x1p-118f;

struct ProductOperands {
  const PackedWeight& weight;
  PackedRows x;
  ProductStore store;
  float* y;
  int ldy;
};

// A tile's sums, from row `row` and output `column` on, on their way to y. Not inlined: it would push the sums, which
// it takes from memory, out of the registers in which they are made.
template <class D, int kRows, int kVectors>
__attribute__((noinline)) void StoreTile(const ProductOperands& op, int row, int column,
                                         const typename D::Sum (&sum)[kRows][kVectors]) {
  using V = typename D::V;
  using Float = typename V::Float;
  const ProductStore store = op.store;
  const bool relu = store.activation == Activation::kRelu;
  float* const y = op.y + Offset(row, op.ldy);
  const float* const add = store.add == nullptr ? nullptr : store.add + Offset(row, store.ldadd);
  // Vectors outside, rows inside: what belongs to the outputs is loaded once.
  for (int v = 0; v < kVectors; ++v) {
    const int at = column + v * V::kLanes;
    const int count = AtMost(V::kLanes, op.weight.outputs - at);
    if (count <= 0) return;
    Float value[kRows];
    if constexpr (D::kInteger) {
      const auto offset = V::LoadInt(op.weight.offset + at);
      const Float scale = V::Load(op.weight.scale + at);
      for (int r = 0; r < kRows; ++r) {
        const Float product = V::FromInt(V::SubInt(sum[r][v], offset));
        value[r] = V::Mul(V::Mul(product, scale), V::Broadcast(op.x.scale[row + r]));
      }
    } else {
      for (int r = 0; r < kRows; ++r) value[r] = sum[r][v];
    }
    const bool whole = count == V::kLanes;
    if (add != nullptr) {
      for (int r = 0; r < kRows; ++r) {
        const float* from = add + Offset(r, store.ldadd) + at;
        value[r] = V::Add(value[r], whole ? V::Load(from) : V::LoadFirst(from, count));
      }
    }
    if (store.bias != nullptr) {
      const Float bias = whole ? V::Load(store.bias + at) : V::LoadFirst(store.bias + at, count);
      for (int r = 0; r < kRows; ++r) value[r] = V::Add(value[r], bias);
    }
    if (relu) {
      for (int r = 0; r < kRows; ++r) value[r] = V::Max(V::Zero(), value[r]);
    }
    for (int r = 0; r < kRows; ++r) {
      float* to = y + Offset(r, op.ldy) + at;
      whole ? V::Store(to, value[r]) : V::StoreFirst(to, count, value[r]);
    }
  }
}

template <class D, int kRows, int kPanels>
void ProductTile(const ProductOperands& op, int row, int panel) {
  constexpr int kLanes = D::V::kLanes;
  constexpr int kPerPanel = kPanelOutputs / kLanes;
  constexpr int kVectors = kPanels * kPerPanel;
  const int cells = op.weight.cells;
  const size_t panel_cells = Offset(cells, kPanelOutputs);
  const uint32_t* w = op.weight.data + static_cast<size_t>(panel) * panel_cells;
  const uint32_t* x = static_cast<const uint32_t*>(op.x.data) + Offset(row, op.x.ld);
  typename D::Sum sum[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) sum[r][v] = D::Zero();
  }
  for (int c = 0; c < cells; ++c, w += kPanelOutputs) {
    typename D::W weights[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      weights[v] = D::Load(w + static_cast<size_t>(v / kPerPanel) * panel_cells + v % kPerPanel * kLanes);
    }
    for (int r = 0; r < kRows; ++r) {
      const typename D::X spread = D::Spread(x + Offset(r, op.x.ld) + c);
      for (int v = 0; v < kVectors; ++v) sum[r][v] = D::Step(sum[r][v], spread, weights[v]);
    }
  }
  typename D::Sum out[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) out[r][v] = sum[r][v];
  }
  StoreTile<D, kRows, kVectors>(op, row, panel * kPanelOutputs, out);
}

// All rows of one tile of outputs, whose weights all rows but the first ones read from the L2 cache.
template <class D, int kPanels>
void ProductPanels(const ProductOperands& op, int rows, int panel) {
  int row = 0;
  for (; row + D::kRows <= rows; row += D::kRows) ProductTile<D, D::kRows, kPanels>(op, row, panel);
  if constexpr (D::kRows > 4) {
    for (; row + 4 <= rows; row += 4) ProductTile<D, 4, kPanels>(op, row, panel);
  }
  for (; row + 2 <= rows; row += 2) ProductTile<D, 2, kPanels>(op, row, panel);
  if (row < rows) ProductTile<D, 1, kPanels>(op, row, panel);
}

template <class D>
void Product(const PackedWeight& weight, int rows, const PackedRows& x, const ProductStore& store, float* y, int ldy) {
  const ProductOperands op{weight, x, store, y, ldy};
  const int panels = (weight.outputs + kPanelOutputs - 1) / kPanelOutputs;
  int panel = 0;
  if (rows <= 2) {
    for (; panel + D::kFewPanels <= panels; panel += D::kFewPanels) {
      if (rows == 2) ProductTile<D, 2, D::kFewPanels>(op, 0, panel);
      if (rows == 1) ProductTile<D, 1, D::kFewPanels>(op, 0, panel);
    }
  }
  if constexpr (D::kPanels == 3) {
    // The last 4 as 2 and 2: a tile of one panel has too few sums to keep the multipliers busy.
    while (panels - panel > 4 || panels - panel == 3) {
      ProductPanels<D, 3>(op, rows, panel);
      panel += 3;
    }
    for (; panel + 2 <= panels; panel += 2) ProductPanels<D, 2>(op, rows, panel);
  }
  for (; panel + D::kPanels <= panels; panel += D::kPanels) ProductPanels<D, D::kPanels>(op, rows, panel);
  for (; panel < panels; ++panel) ProductPanels<D, 1>(op, rows, panel);
}

// The nearest bfloat16, ties to even; a NaN stays one. In the low half of each lane.
template <class V>
typename V::Int ToBfloat16(typename V::Float x) {
  const typename V::Int bits = V::Bits(x);
  const typename V::Int odd = V::AndInt(V::ShiftRight(bits, 16), V::BroadcastInt(1));
  const typename V::Int rounded = V::AddInt(bits, V::AddInt(odd, V::BroadcastInt(0x7fff)));
  return V::ShiftRight(V::QuietIfNan(x, rounded), 16);
}

template <class V>
void RoundToBfloat16(int rows, int width, const float* x, int ldx, uint32_t* cells, int ldc) {
  for (int r = 0; r < rows; ++r) {
    const float* from = x + Offset(r, ldx);
    uint32_t* to = cells + Offset(r, ldc);
    int d = 0;
    for (; d + V::kLanes <= width; d += V::kLanes) V::StoreLow16(to + d / 2, ToBfloat16<V>(V::Load(from + d)));
    if (d == width) continue;
    alignas(64) uint32_t last[V::kLanes / 2];
    V::StoreLow16(last, ToBfloat16<V>(V::LoadFirst(from + d, width - d)));
    for (int c = 0; c < (width - d + 1) / 2; ++c) to[d / 2 + c] = last[c];
  }
}

template <class V>
void PairToBfloat16(int rows, int width, const float* x, int ldx, uint32_t* cells, int ldc) {
  using Float = typename V::Float;
  const auto cell = [](Float low, Float high) {
    return V::OrInt(ToBfloat16<V>(low), V::ShiftLeft(ToBfloat16<V>(high), 16));
  };
  for (int r = 0; r < rows; r += 2, cells += ldc) {
    const float* low = x + Offset(r, ldx);
    const float* high = low + ldx;
    const bool pair = r + 1 < rows;
    int d = 0;
    for (; d + V::kLanes <= width; d += V::kLanes) {
      V::StoreInt(reinterpret_cast<int32_t*>(cells) + d, cell(V::Load(low + d), pair ? V::Load(high + d) : V::Zero()));
    }
    if (d == width) continue;
    alignas(64) int32_t last[V::kLanes];
    V::StoreInt(last, cell(V::LoadFirst(low + d, width - d), pair ? V::LoadFirst(high + d, width - d) : V::Zero()));
    for (int c = d; c < width; ++c) cells[c] = static_cast<uint32_t>(last[c - d]);
  }
}

template <class V>
void Quantise(int rows, int width, const float* x, int ldx, uint32_t* cells, int ldc, float* scale) {
  using Float = typename V::Float;
  for (int r = 0; r < rows; ++r) {
    const float* from = x + Offset(r, ldx);
    uint32_t* to = cells + Offset(r, ldc);
    // Of numbers without their sign the bits, as integers, stand in the same order; above infinity's are NaNs.
    typename V::Int largest = V::BroadcastInt(0);
    int d = 0;
    for (; d + V::kLanes <= width; d += V::kLanes) {
      largest = V::MaxInt(largest, V::Bits(V::Abs(V::Load(from + d))));
    }
    if (d < width) largest = V::MaxInt(largest, V::Bits(V::Abs(V::LoadFirst(from + d, width - d))));
    const float magnitude = __builtin_bit_cast(float, V::Largest(largest));
    scale[r] = magnitude * (1.0f / 127);
    const Float inverse = V::Broadcast(magnitude >= kSmallestMagnitude ? 127 / magnitude : 0);
    const auto quantise = [&](Float v) { return V::AddInt(V::ToInt(V::Mul(v, inverse)), V::BroadcastInt(128)); };
    for (d = 0; d + V::kLanes <= width; d += V::kLanes) V::StoreLow8(to + d / 4, quantise(V::Load(from + d)));
    if (d == width) continue;
    alignas(64) uint32_t last[V::kLanes / 4];
    V::StoreLow8(last, quantise(V::LoadFirst(from + d, width - d)));
    for (int c = 0; c < (width - d + 3) / 4; ++c) to[d / 4 + c] = last[c];
  }
}

}  // namespace hilomoe::kernels

#endif  // HILOMOE_RUNTIME_KERNELS_VECTOR_PRODUCT_H_
