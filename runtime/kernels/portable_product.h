// Products with packed weights for any CPU, four outputs to a vector of sixteen bytes, which most have registers for;
// where not, the compiler makes scalars of them. An operation D has
//   D::Sum, W, X        running sums of 4 outputs, 4 cells of weights, a cell of x in every lane, as Step wants them
//   D::Load, Spread     from cells
//   D::Step             sum + x w, over the columns of a cell
//   D::kRows            rows of a tile: their sums, and a panel's cells, fit 16 registers
// Every sum is one chain in ascending order of columns, whatever the tile.
#ifndef HILOMOE_RUNTIME_KERNELS_PORTABLE_PRODUCT_H_
#define HILOMOE_RUNTIME_KERNELS_PORTABLE_PRODUCT_H_

#include <cstdint>

#include "runtime/kernels/kernels.h"
#include "runtime/kernels/vector_common.h"

namespace hilomoe::kernels {
// As vector_avx512.h: what includes this is compiled with flags of its own.
namespace {

using Float4 = float __attribute__((vector_size(16)));
using Int4 = int32_t __attribute__((vector_size(16)));
using Cell4 = uint32_t __attribute__((vector_size(16)));
using Short8 = int16_t __attribute__((vector_size(16)));

constexpr int kVectorsOfPanel = kPanelOutputs / 4;

struct PortableFloat32 {
  using Sum = Float4;
  using W = Float4;
  using X = Float4;
  static constexpr int kRows = 2;
  static W Load(Cell4 cells) { return reinterpret_cast<Float4>(cells); }
  static X Spread(uint32_t cell) { return Load(Cell4{cell, cell, cell, cell}); }
  static Sum Step(Sum sum, X x, W w) { return sum + x * w; }
};

// A bfloat16 is the upper half of a float.
struct PortableBfloat16 {
  struct Pair {
    Float4 low, high;
  };
  using Sum = Float4;
  using W = Pair;
  using X = Pair;
  static constexpr int kRows = 1;
  static W Load(Cell4 cells) {
    return {reinterpret_cast<Float4>(cells << 16), reinterpret_cast<Float4>(cells & 0xffff0000)};
  }
  static X Spread(uint32_t cell) { return Load(Cell4{cell, cell, cell, cell}); }
  static Sum Step(Sum sum, X x, W w) {
    sum = sum + x.low * w.low;
    return sum + x.high * w.high;
  }
};

// A product of uint8 and int8 fits an int16. Even and odd columns apart.
struct PortableInt8 {
  struct Pair {
    Short8 even, odd;
  };
  using Sum = Int4;
  using W = Pair;
  using X = Pair;
  static constexpr int kRows = 1;
  static W Load(Cell4 cells) {
    const Short8 pairs = reinterpret_cast<Short8>(cells);
    return {(pairs << 8) >> 8, pairs >> 8};
  }
  static X Spread(uint32_t cell) {
    const Cell4 cells = {cell, cell, cell, cell};
    return {reinterpret_cast<Short8>(cells & 0x00ff00ff), reinterpret_cast<Short8>(cells >> 8 & 0x00ff00ff)};
  }
  static Sum Step(Sum sum, X x, W w) {
    const Int4 even = reinterpret_cast<Int4>(x.even * w.even), odd = reinterpret_cast<Int4>(x.odd * w.odd);
    return sum + ((even << 16 >> 16) + (even >> 16)) + ((odd << 16 >> 16) + (odd >> 16));
  }
};

inline float Finished(const ProductStore& store, int row, int n, float value) {
  if (store.add != nullptr) value += store.add[Offset(row, store.ldadd) + static_cast<size_t>(n)];
  if (store.bias != nullptr) value += store.bias[n];
  return store.activation == Activation::kRelu && value < 0 ? 0 : value;
}

template <class D, int kRows>
void PortableTile(const PackedWeight& weight, int row, int panel, const PackedRows& x, const ProductStore& store,
                  float* y, int ldy) {
  const uint32_t* cells = static_cast<const uint32_t*>(x.data) + Offset(row, x.ld);
  const PackedLayout& layout = weight.layout;
  const size_t stride = layout.Group(panel).stride();
  const uint32_t* data = weight.data + layout.Cell(panel * kPanelOutputs, 0);
  typename D::Sum sum[kRows][kVectorsOfPanel] = {};
  for (int c = 0; c < layout.cells; ++c, data += stride) {
    typename D::X spread[kRows];
    for (int r = 0; r < kRows; ++r) spread[r] = D::Spread(cells[Offset(r, x.ld) + static_cast<size_t>(c)]);
    for (int v = 0; v < kVectorsOfPanel; ++v) {
      Cell4 four;
      __builtin_memcpy(&four, data + 4 * v, sizeof(four));
      const typename D::W w = D::Load(four);
      for (int r = 0; r < kRows; ++r) sum[r][v] = D::Step(sum[r][v], spread[r], w);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int o = 0; o < kPanelOutputs && panel * kPanelOutputs + o < layout.outputs; ++o) {
      const int n = panel * kPanelOutputs + o;
      float value;
      if constexpr (__is_same(typename D::Sum, Int4)) {
        const auto offset = static_cast<int32_t>(data[o]);
        const auto scale = __builtin_bit_cast(float, data[stride + static_cast<size_t>(o)]);
        value = static_cast<float>(sum[r][o / 4][o % 4] - offset) * scale * x.scale[row + r];
      } else {
        value = sum[r][o / 4][o % 4];
      }
      y[Offset(row + r, ldy) + static_cast<size_t>(n)] = Finished(store, row + r, n, value);
    }
  }
}

template <class D>
void PortableProduct(const PackedWeight& weight, int rows, const PackedRows& x, const ProductStore& store, float* y,
                     int ldy) {
  for (int panel = 0; panel < weight.layout.panels; ++panel) {
    int row = 0;
    for (; row + D::kRows <= rows; row += D::kRows) PortableTile<D, D::kRows>(weight, row, panel, x, store, y, ldy);
    for (; row < rows; ++row) PortableTile<D, 1>(weight, row, panel, x, store, y, ldy);
  }
}

}  // namespace
}  // namespace hilomoe::kernels

#endif  // HILOMOE_RUNTIME_KERNELS_PORTABLE_PRODUCT_H_
