// Products with packed weights, over an operation D of one precision on one instruction set:
//   D::V            the vector type of vector_common.h
//   D::Sum, Zero    kLanes running sums: float, or int32 of int8's
//   D::X, Spread    a cell of x in every lane
//   D::W, Load      kLanes cells of weights
//   D::Step         sum + x w, over the columns of a cell
//   D::kInteger     whether the sums are int32
//   D::kRows        rows of a tile of many
//   D::Panels       panels of a tile of 1, 2, 4 or kRows rows
//   D::kLinesAhead  of weights, that one or two rows ask for before they need them; 0: they do not
//
// Every sum is one chain in ascending order of columns, whatever the tile it falls into: so tiles can be changed, and
// batches split, without changing a bit.
#ifndef HILOMOE_RUNTIME_KERNELS_VECTOR_PRODUCT_H_
#define HILOMOE_RUNTIME_KERNELS_VECTOR_PRODUCT_H_

#include <cstdint>

#include "runtime/kernels/kernels.h"
#include "runtime/kernels/vector_common.h"

namespace hilomoe::kernels {

struct ProductOperands {
  const PackedWeight& weight;
  PackedRows x;
  ProductStore store;
  float* y;
  int ldy;
};

// A tile's sums, from row `row` and output `column` on, on their way to y; w: what follows its weights, `stride`
// cells to a step; kWhole: all of its columns are outputs. One thing after the other for the whole tile: what depends
// on the operands is asked once, not for every vector.
template <class D, bool kWhole, int kRows, int kVectors>
__attribute__((always_inline)) inline void FinishTile(const ProductOperands& operands, int row, int column,
                                                      const uint32_t* w, size_t stride,
                                                      const typename D::Sum (&sum)[kRows][kVectors]) {
  using V = typename D::V;
  using Float = typename V::Float;
  const ProductOperands op = operands;  // a store of floats might change what is referred to
  const ProductStore store = op.store;
  // Of a vector's lanes.
  const auto count = [left = op.weight.layout.outputs - column](int v) {
    return left < v * V::kLanes ? 0 : AtMost(V::kLanes, left - v * V::kLanes);
  };
  const auto load = [&](const float* from, int v) {
    return kWhole ? V::Load(from + v * V::kLanes) : V::LoadFirst(from + v * V::kLanes, count(v));
  };
  Float value[kRows][kVectors];
  // Vectors outside, rows inside: what belongs to the outputs is loaded once.
  if constexpr (D::kInteger) {
    const auto* const offsets = reinterpret_cast<const int32_t*>(w);
    const auto* const scales = reinterpret_cast<const float*>(w + stride);
    HILOMOE_UNROLL for (int v = 0; v < kVectors; ++v) {
      const auto offset = V::LoadInt(offsets + v * V::kLanes);
      const Float scale = V::Load(scales + v * V::kLanes);
      HILOMOE_UNROLL for (int r = 0; r < kRows; ++r) {
        const Float product = V::FromInt(V::SubInt(sum[r][v], offset));
        value[r][v] = V::Mul(V::Mul(product, scale), V::Broadcast(op.x.scale[row + r]));
      }
    }
  } else {
    HILOMOE_UNROLL for (int v = 0; v < kVectors; ++v) {
      HILOMOE_UNROLL for (int r = 0; r < kRows; ++r) value[r][v] = sum[r][v];
    }
  }
  if (store.add != nullptr) {
    const float* const add = store.add + Offset(row, store.ldadd) + column;
    HILOMOE_UNROLL for (int v = 0; v < kVectors; ++v) {
      HILOMOE_UNROLL for (int r = 0; r < kRows; ++r) {
        value[r][v] = V::Add(value[r][v], load(add + Offset(r, store.ldadd), v));
      }
    }
  }
  if (store.bias != nullptr) {
    HILOMOE_UNROLL for (int v = 0; v < kVectors; ++v) {
      const Float bias = load(store.bias + column, v);
      HILOMOE_UNROLL for (int r = 0; r < kRows; ++r) value[r][v] = V::Add(value[r][v], bias);
    }
  }
  if (store.activation == Activation::kRelu) {
    HILOMOE_UNROLL for (int v = 0; v < kVectors; ++v) {
      HILOMOE_UNROLL for (int r = 0; r < kRows; ++r) value[r][v] = V::Max(V::Zero(), value[r][v]);
    }
  }
  HILOMOE_UNROLL for (int r = 0; r < kRows; ++r) {
    float* const y = op.y + Offset(row + r, op.ldy) + column;
    HILOMOE_UNROLL for (int v = 0; v < kVectors; ++v) {
      float* const to = y + v * V::kLanes;
      kWhole ? V::Store(to, value[r][v]) : V::StoreFirst(to, count(v), value[r][v]);
    }
  }
}

// kWhole: all of its columns are known to be outputs.
template <class D, int kRows, int kPanels, bool kWhole = false>
__attribute__((always_inline)) inline void InlinedTile(const ProductOperands& op, PanelGroup group, int row,
                                                       int panel) {
  constexpr int kLanes = D::V::kLanes;
  constexpr int kVectors = kPanels * kPanelOutputs / kLanes;
  const PackedLayout& layout = op.weight.layout;
  const int column = panel * kPanelOutputs, cells = layout.cells;
  const size_t stride = group.stride();
  const uint32_t* w = op.weight.data + layout.Cells(group.first) + Offset(panel - group.first, kPanelOutputs);
  const uint32_t* x = static_cast<const uint32_t*>(op.x.data) + Offset(row, op.x.ld);
  typename D::Sum sum[kRows][kVectors];
  HILOMOE_UNROLL for (int r = 0; r < kRows; ++r) {
    HILOMOE_UNROLL for (int v = 0; v < kVectors; ++v) sum[r][v] = D::Zero();
  }
  for (int c = 0; c < cells; ++c, w += stride) {
    if constexpr (kRows <= 2 && D::kLinesAhead > 0) {
      for (int p = 0; p < kPanels; ++p) __builtin_prefetch(w + (D::kLinesAhead + p) * kPanelOutputs);
    }
    typename D::W weights[kVectors];
    HILOMOE_UNROLL for (int v = 0; v < kVectors; ++v) weights[v] = D::Load(w + v * kLanes);
    HILOMOE_UNROLL for (int r = 0; r < kRows; ++r) {
      const typename D::X spread = D::Spread(x + Offset(r, op.x.ld) + c);
      HILOMOE_UNROLL for (int v = 0; v < kVectors; ++v) sum[r][v] = D::Step(sum[r][v], spread, weights[v]);
    }
  }
  if (kWhole || column + kPanels * kPanelOutputs <= layout.outputs) {
    FinishTile<D, true>(op, row, column, w, stride, sum);
  } else {
    FinishTile<D, false>(op, row, column, w, stride, sum);
  }
}

template <class D, int kRows, int kPanels>
void ProductTile(const ProductOperands& op, PanelGroup group, int row, int panel) {
  InlinedTile<D, kRows, kPanels>(op, group, row, panel);
}

// Tiles of `panels` panels, at most kPanels, for rows from `row` up to `end`, kRows at a time.
template <class D, int kRows, int kPanels>
void ProductPanels(const ProductOperands& op, PanelGroup group, int row, int end, int panel, int panels) {
  if (panels < kPanels) {
    if constexpr (kPanels > 1) ProductPanels<D, kRows, kPanels - 1>(op, group, row, end, panel, panels);
    return;
  }
  for (; row < end; row += kRows) ProductTile<D, kRows, kPanels>(op, group, row, panel);
}

// tile(first panel, panels) for a group's tiles: as few as D::Panels(kRows) allows, and equally wide but for a panel.
template <class D, int kRows, class Tile>
void ForTiles(PanelGroup group, const Tile& tile) {
  constexpr int kPanels = D::Panels(kRows);
  const int last = group.first + group.count;
  for (int panel = group.first; panel < last;) {
    const int tiles = (last - panel + kPanels - 1) / kPanels;
    const int panels = (last - panel + tiles - 1) / tiles;
    tile(panel, panels);
    panel += panels;
  }
}

// All panels of a group, for kRows rows from `row` on.
template <class D, int kRows>
void ProductRows(const ProductOperands& op, PanelGroup group, int row) {
  ForTiles<D, kRows>(group, [&](int panel, int panels) {
    ProductPanels<D, kRows, D::Panels(kRows)>(op, group, row, row + kRows, panel, panels);
  });
}

// A group of at most kPanels, in one tile.
template <class D, int kPanels>
__attribute__((always_inline)) inline void GroupOfOneRow(const ProductOperands& op, PanelGroup group) {
  if constexpr (kPanels > 1) {
    if (group.count < kPanels) return GroupOfOneRow<D, kPanels - 1>(op, group);
  }
  InlinedTile<D, 1, kPanels>(op, group, 0, group.first);
}

// A single row takes as long as its weights take to arrive, so what counts is how early the processor asks for them. On
// Zen 5 that hangs on which instructions load them: int8 weights that are read in turn come up to a tenth faster where
// a group is not loaded by the instructions that have just loaded another, as if these had to learn their stride anew.
// So four copies of the loop take turns, and nothing is called in between.
template <class D>
void ProductOfOneRow(const ProductOperands& operands) {
  static_assert(D::Panels(1) == kGroupPanels);
  const PackedWeight weight = operands.weight;  // a copy stays in registers
  const ProductOperands op{weight, operands.x, operands.store, operands.y, operands.ldy};
  const PackedLayout& layout = weight.layout;
  int panel = 0;
  int whole = AtMost(layout.WholeGroups(), layout.outputs / (kGroupPanels * kPanelOutputs));
  const auto whole_group = [&]() __attribute__((always_inline)) {
    if (whole-- == 0) return false;
    InlinedTile<D, 1, kGroupPanels, true>(op, {panel, kGroupPanels}, 0, panel);
    panel += kGroupPanels;
    return true;
  };
  while (whole_group() && whole_group() && whole_group() && whole_group()) {
  }
  while (panel < layout.panels) {
    const PanelGroup group = layout.Group(panel);
    GroupOfOneRow<D, kGroupPanels>(op, group);
    panel += group.count;
  }
}

template <class D>
void Product(const PackedWeight& weight, int rows, const PackedRows& x, const ProductStore& store, float* y, int ldy) {
  constexpr int kRows = D::kRows, kPanels = D::Panels(kRows);
  const ProductOperands op{weight, x, store, y, ldy};
  if constexpr (D::Panels(1) == kGroupPanels) {
    if (rows == 1) return ProductOfOneRow<D>(op);
  }
  const PackedLayout& layout = weight.layout;
  const int few = rows % kRows % 4, many = rows - few;
  for (int panel = 0; panel < layout.panels;) {
    const PanelGroup group = layout.Group(panel);
    panel += group.count;
    if (few >= 2) ProductRows<D, 2>(op, group, many);
    if (few % 2 != 0) ProductRows<D, 1>(op, group, rows - 1);
    if (many == 0) continue;
    // All rows on one tile's weights, which a cache nearer than the group's may hold by then.
    ForTiles<D, kRows>(group, [&](int first, int count) {
      const int four = many % kRows;  // or none
      if constexpr (kRows > 4) {
        static_assert(D::Panels(4) == kPanels);
        if (four != 0) ProductPanels<D, 4, kPanels>(op, group, 0, 4, first, count);
      }
      ProductPanels<D, kRows, kPanels>(op, group, four, many, first, count);
    });
  }
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

// A row x [width], times factor [width] where that is given.
template <class V>
struct FactoredRow {
  const float* x;
  const float* factor;

  typename V::Float Load(int d) const {
    const typename V::Float v = V::Load(x + d);
    return factor == nullptr ? v : V::Mul(v, V::Load(factor + d));
  }
  typename V::Float LoadFirst(int d, int count) const {
    const typename V::Float v = V::LoadFirst(x + d, count);
    return factor == nullptr ? v : V::Mul(v, V::LoadFirst(factor + d, count));
  }
};

// The largest |x|; NaN where one is: of numbers without their sign the bits, as integers, stand in the same order, and
// above infinity's are NaNs.
template <class V>
float LargestMagnitude(int width, FactoredRow<V> row) {
  typename V::Int even = V::BroadcastInt(0), odd = even;
  int d = 0;
  for (; d + 2 * V::kLanes <= width; d += 2 * V::kLanes) {
    even = V::MaxInt(even, V::Bits(V::Abs(row.Load(d))));
    odd = V::MaxInt(odd, V::Bits(V::Abs(row.Load(d + V::kLanes))));
  }
  for (; d < width; d += V::kLanes) {
    even = V::MaxInt(even, V::Bits(V::Abs(row.LoadFirst(d, AtMost(V::kLanes, width - d)))));
  }
  return __builtin_bit_cast(float, V::Largest(V::MaxInt(even, odd)));
}

template <class V>
void Quantise(int rows, int width, const float* x, int ldx, const float* factor, uint32_t* cells, int ldc,
              float* scale) {
  using Float = typename V::Float;
  constexpr int kLanes = V::kLanes;
  for (int r = 0; r < rows; ++r) {
    const FactoredRow<V> row{x + Offset(r, ldx), factor};
    uint32_t* to = cells + Offset(r, ldc);
    const float magnitude = LargestMagnitude<V>(width, row);
    scale[r] = magnitude * (1.0f / 127);
    if (!(magnitude < __builtin_inff())) {  // zeros: NaN after the scale
      __builtin_memset(to, 128, static_cast<size_t>((width + 3) / 4) * sizeof(uint32_t));
      continue;
    }
    const Float inverse = V::Broadcast(magnitude >= kSmallestMagnitude ? 127 / magnitude : 0);
    const auto quantised = [&](Float v) { return V::ToInt(V::MulAdd(v, inverse, V::Broadcast(128))); };
    const auto load = [&](int d) { return quantised(row.Load(d)); };
    int d = 0;
    for (; d + 4 * kLanes <= width; d += 4 * kLanes) {
      V::StoreBytes(to + d / 4, load(d), load(d + kLanes), load(d + 2 * kLanes), load(d + 3 * kLanes));
    }
    for (; d + kLanes <= width; d += kLanes) V::StoreLow8(to + d / 4, load(d));
    if (d == width) continue;
    alignas(64) uint32_t last[kLanes / 4];
    V::StoreLow8(last, quantised(row.LoadFirst(d, width - d)));
    for (int c = 0; c < (width - d + 3) / 4; ++c) to[d / 4 + c] = last[c];
  }
}

}  // namespace hilomoe::kernels

#endif  // HILOMOE_RUNTIME_KERNELS_VECTOR_PRODUCT_H_
