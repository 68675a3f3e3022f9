#include "runtime/input_gather.h"

#include <algorithm>
#include <cstring>

namespace hilomoe {

InputGather::InputGather(const ModelSpec& spec, const FeatureTensors<const float>& tensors,
                         const FeatureTensors<const StoredMatrix>& matrices, const kernels::Kernels& kernels)
    : spec_(spec), tensors_(tensors), matrices_(matrices), kernels_(kernels) {
  for (size_t f = 0; f < spec.features().size(); ++f) {
    const FeatureSpec& feature = spec.features()[f];
    features_[feature.is_context()].push_back(f);
    if (feature.is_number() || feature.is_unpooled()) continue;
    const StoredMatrix& table = *matrices.tables[feature.table];
    fetched_[feature.is_context()].push_back(
        {f, table.data, StoredRowBytes(table.precision, table.columns), feature.is_pooled()});
  }
}

void InputGather::Feature(const EncodedBatch& batch, size_t f, size_t begin, int rows, float* x) const {
  const FeatureSpec& feature = spec_.features()[f];
  const EncodedFeature& encoded = batch.features[f];
  if (feature.is_unpooled()) return;
  const size_t ldx = spec_.input_width(), d = feature.width;
  float* out = x + feature.input_offset;
  if (feature.is_number()) {
    const float* weight = tensors_.numeric_weight[f];
    for (int r = 0; r < rows; ++r, out += ldx) {
      const float value = encoded.values[begin + r];
      if (d == 0) out[0] = value;
      for (size_t i = 0; i < d; ++i) out[i] = value * weight[i];
      if (feature.missing_indicator) out[std::max<size_t>(d, 1)] = encoded.missing[begin + r];
    }
    return;
  }
  if (!feature.is_pooled()) {
    Ids(batch, f, begin, static_cast<size_t>(rows), out, ldx);
    return;
  }
  const StoredMatrix& table = *matrices_.tables[feature.table];
  for (int r = 0; r < rows; ++r, out += ldx) {
    std::memset(out, 0, d * sizeof(float));
    const uint32_t first = encoded.offsets[begin + r], last = encoded.offsets[begin + r + 1];
    for (uint32_t i = first; i < last; ++i) AddRow(table, encoded.rows[i], out);
    if (last == first) continue;
    const float scale = 1 / static_cast<float>(last - first);
    for (size_t i = 0; i < d; ++i) out[i] *= scale;
  }
}

void InputGather::AddRow(const StoredMatrix& table, size_t row, float* out) const {
  if (table.precision == Precision::kFloat32) {
    kernels_.add(static_cast<int>(table.columns), reinterpret_cast<const float*>(table.row(row)), out);
    return;
  }
  constexpr size_t kAtOnce = 64;
  float values[kAtOnce];
  for (size_t d = 0; d < table.columns; d += kAtOnce) {
    const size_t count = std::min(kAtOnce, table.columns - d);
    table.ReadPart(row, d, count, values);
    kernels_.add(static_cast<int>(count), values, out + d);
  }
}

void InputGather::Ids(const EncodedBatch& batch, size_t f, size_t begin, size_t count, float* out, size_t ld) const {
  const StoredMatrix& table = *matrices_.tables[spec_.features()[f].table];
  const uint32_t* rows = batch.features[f].rows.data() + begin;
  for (size_t i = 0; i < count; ++i, out += ld) table.ReadRow(rows[i], out);
}

void InputGather::Prefetch(const EncodedBatch& batch, bool context, size_t begin, int rows) const {
  constexpr size_t kLine = 64;
  // More would push out of L2 what it is read beside.
  constexpr size_t kMostLines = size_t{256 << 10} / kLine;
  size_t lines = 0;
  if (rows == 0) return;
  const size_t end = begin + static_cast<size_t>(rows);
  for (const Fetched& fetched : fetched_[context]) {
    const EncodedFeature& encoded = batch.features[fetched.feature];
    const size_t first = fetched.pooled ? encoded.offsets[begin] : begin;
    const size_t last = fetched.pooled ? encoded.offsets[end] : end;
    for (size_t i = first; i < last && lines < kMostLines; ++i) {
      const std::byte* row = fetched.table + encoded.rows[i] * fetched.row_bytes;
      const size_t into_line = reinterpret_cast<uintptr_t>(row) % kLine;
      for (size_t byte = 0; byte < into_line + fetched.row_bytes; byte += kLine, ++lines)
        __builtin_prefetch(row + byte - into_line);
    }
  }
}

void InputGather::Features(const EncodedBatch& batch, bool context, size_t begin, int rows, float* x) const {
  for (const size_t f : features_[context]) Feature(batch, f, begin, rows, x);
}

void InputGather::AddLinear(const EncodedBatch& batch, bool context, size_t begin, int rows, float* out) const {
  for (const size_t f : features_[context]) {
    const FeatureSpec& feature = spec_.features()[f];
    const float* weight = tensors_.linear[f];
    if (weight == nullptr) continue;
    const EncodedFeature& encoded = batch.features[f];
    for (int r = 0; r < rows; ++r) {
      if (feature.is_number()) {
        out[r] += encoded.values[begin + r] * weight[0];
      } else if (!feature.is_pooled()) {
        out[r] += weight[encoded.rows[begin + r]];
      } else if (const uint32_t first = encoded.offsets[begin + r], last = encoded.offsets[begin + r + 1];
                 last > first) {
        float sum = 0;
        for (uint32_t i = first; i < last; ++i) sum += weight[encoded.rows[i]];
        out[r] += sum / static_cast<float>(last - first);
      }
    }
  }
}

}  // namespace hilomoe
