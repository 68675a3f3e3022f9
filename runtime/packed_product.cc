#include "runtime/packed_product.h"

#include <cstring>

namespace hilomoe {
namespace {

static_assert(static_cast<int>(Precision::kFloat32) == static_cast<int>(kernels::Precision::kFloat32));
static_assert(static_cast<int>(Precision::kBfloat16) == static_cast<int>(kernels::Precision::kBfloat16));
static_assert(static_cast<int>(Precision::kInt8) == static_cast<int>(kernels::Precision::kInt8));

constexpr int32_t kZeroPoint = 128;  // of kernels::PackedRows

}  // namespace

PackedProduct::PackedProduct(const StoredMatrix& weight, size_t first_column, size_t columns, bool transposed)
    : columns_(static_cast<int>(columns)),
      weight_{{static_cast<kernels::Precision>(weight.precision),
               static_cast<int>(transposed ? weight.columns : weight.rows), columns_},
              nullptr} {
  const kernels::PackedLayout& layout = weight_.layout;
  const bool int8 = weight.precision == Precision::kInt8;
  const size_t per_cell = static_cast<size_t>(kernels::ColumnsPerCell(layout.precision));
  const size_t number = sizeof(uint32_t) / per_cell;
  cells_.resize(layout.size());
  const auto place = [&](size_t output, size_t column, const std::byte* from) {
    uint32_t* const cell = &cells_[layout.Cell(static_cast<int>(output), static_cast<int>(column / per_cell))];
    std::memcpy(reinterpret_cast<std::byte*>(cell) + column % per_cell * number, from, number);
    if (!int8) return;
    cells_[layout.Cell(static_cast<int>(output), layout.cells)] +=
        static_cast<uint32_t>(kZeroPoint * static_cast<int8_t>(*from));
  };
  const auto place_scale = [&](size_t output, float scale) {
    std::memcpy(&cells_[layout.Cell(static_cast<int>(output), layout.cells + 1)], &scale, sizeof(scale));
  };
  // A row's scale belongs to an output, or to a column: then to what it is multiplied by.
  if (int8 && transposed) factor_.resize(columns);
  for (size_t r = 0; r < weight.rows; ++r) {
    const std::byte* const row = weight.row(r) + (int8 ? sizeof(float) : 0);
    if (!transposed) {
      if (int8) place_scale(r, weight.Scale(r));
      for (size_t c = 0; c < columns; ++c) place(r, c, row + (first_column + c) * number);
    } else if (r >= first_column && r < first_column + columns) {
      if (int8) factor_[r - first_column] = weight.Scale(r);
      for (size_t o = 0; o < weight.columns; ++o) place(o, r - first_column, row + o * number);
    }
  }
  if (int8 && transposed) {
    for (size_t o = 0; o < weight.columns; ++o) place_scale(o, 1);
  }
  weight_.data = cells_.data();
}

size_t PackedProduct::scratchpad_bytes() const {
  if (weight_.layout.precision == kernels::Precision::kFloat32) return 0;
  return kTileRows * (static_cast<size_t>(weight_.layout.cells) * sizeof(uint32_t) + sizeof(float));
}

void PackedProduct::Run(const kernels::Kernels& kernels, int rows, const float* x, int ldx,
                        const kernels::ProductStore& store, float* y, int ldy, std::byte* scratchpad) const {
  kernels::PackedRows packed{x, ldx, nullptr};
  if (weight_.layout.precision != kernels::Precision::kFloat32) {
    auto* scale = reinterpret_cast<float*>(scratchpad);
    auto* cells = reinterpret_cast<uint32_t*>(scratchpad + kTileRows * sizeof(float));
    if (weight_.layout.precision == kernels::Precision::kInt8) {
      kernels.quantise(rows, columns_, x, ldx, factor_.empty() ? nullptr : factor_.data(), cells, weight_.layout.cells,
                       scale);
    } else {
      kernels.round_to_bfloat16(rows, columns_, x, ldx, cells, weight_.layout.cells);
    }
    packed = {cells, weight_.layout.cells, scale};
  }
  kernels.product[static_cast<int>(weight_.layout.precision)](weight_, rows, packed, store, y, ldy);
}

}  // namespace hilomoe
