#include "runtime/packed_product.h"

#include <cstring>

namespace hilomoe {
namespace {

using kernels::kPanelOutputs;

static_assert(static_cast<int>(Precision::kFloat32) == static_cast<int>(kernels::Precision::kFloat32));
static_assert(static_cast<int>(Precision::kBfloat16) == static_cast<int>(kernels::Precision::kBfloat16));
static_assert(static_cast<int>(Precision::kInt8) == static_cast<int>(kernels::Precision::kInt8));

constexpr int32_t kZeroPoint = 128;  // of kernels::PackedRows

}  // namespace

PackedProduct::PackedProduct(const StoredMatrix& weight, size_t first_column, size_t columns, bool transposed)
    : columns_(static_cast<int>(columns)) {
  const Precision precision = weight.precision;
  const bool int8 = precision == Precision::kInt8;
  const size_t outputs = transposed ? weight.columns : weight.rows;
  const size_t panels = (outputs + kPanelOutputs - 1) / kPanelOutputs;
  const size_t per_cell = static_cast<size_t>(kernels::ColumnsPerCell(static_cast<kernels::Precision>(precision)));
  const size_t cells = (columns + per_cell - 1) / per_cell, number = sizeof(uint32_t) / per_cell;
  cells_.resize(panels * cells * kPanelOutputs);
  if (int8) {
    // A row's scale belongs to an output, or to a column: then to what it is multiplied by.
    if (transposed) factor_.resize(columns);
    scale_.resize(panels * kPanelOutputs, transposed ? 1.0F : 0.0F);
    offset_.resize(panels * kPanelOutputs);
  }
  auto* bytes = reinterpret_cast<std::byte*>(cells_.data());
  const auto place = [&](size_t output, size_t column) {
    const int panel = static_cast<int>(output / kPanelOutputs);
    const kernels::PanelGroup group = kernels::GroupOfPanel(static_cast<int>(panels), panel);
    const size_t step = static_cast<size_t>(group.count) * kPanelOutputs;
    const size_t cell = kernels::FirstCell(static_cast<int>(cells), group, panel) + column / per_cell * step;
    return bytes + (cell + output % kPanelOutputs) * sizeof(uint32_t) + column % per_cell * number;
  };
  const auto place_number = [&](size_t output, size_t column, const std::byte* from) {
    std::memcpy(place(output, column), from, number);
    if (int8) offset_[output] += kZeroPoint * static_cast<int8_t>(*from);
  };
  for (size_t r = 0; r < weight.rows; ++r) {
    const std::byte* const row = weight.row(r) + (int8 ? sizeof(float) : 0);
    if (!transposed) {
      if (int8) scale_[r] = weight.Scale(r);
      for (size_t c = 0; c < columns; ++c) place_number(r, c, row + (first_column + c) * number);
    } else if (r >= first_column && r < first_column + columns) {
      if (int8) factor_[r - first_column] = weight.Scale(r);
      for (size_t o = 0; o < outputs; ++o) place_number(o, r - first_column, row + o * number);
    }
  }
  weight_ = {static_cast<kernels::Precision>(precision),
             static_cast<int>(outputs),
             static_cast<int>(cells),
             cells_.data(),
             int8 ? scale_.data() : nullptr,
             int8 ? offset_.data() : nullptr};
}

size_t PackedProduct::scratchpad_bytes() const {
  if (weight_.precision == kernels::Precision::kFloat32) return 0;
  return kTileRows * (static_cast<size_t>(weight_.cells) * sizeof(uint32_t) + sizeof(float));
}

void PackedProduct::Run(const kernels::Kernels& kernels, int rows, const float* x, int ldx,
                        const kernels::ProductStore& store, float* y, int ldy, std::byte* scratchpad) const {
  kernels::PackedRows packed{x, ldx, nullptr};
  if (weight_.precision != kernels::Precision::kFloat32) {
    auto* scale = reinterpret_cast<float*>(scratchpad);
    auto* cells = reinterpret_cast<uint32_t*>(scratchpad + kTileRows * sizeof(float));
    if (weight_.precision == kernels::Precision::kInt8) {
      kernels.quantise(rows, columns_, x, ldx, factor_.empty() ? nullptr : factor_.data(), cells, weight_.cells, scale);
    } else {
      kernels.round_to_bfloat16(rows, columns_, x, ldx, cells, weight_.cells);
    }
    packed = {cells, weight_.cells, scale};
  }
  kernels.product[static_cast<int>(weight_.precision)](weight_, rows, packed, store, y, ldy);
}

}  // namespace hilomoe
