// Matrices of a model file, whose numbers are stored in fewer bits where the converter was told so.
#ifndef HILOMOE_MODEL_STORED_MATRIX_H_
#define HILOMOE_MODEL_STORED_MATRIX_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace hilomoe {

// kInt8: every row has a scale of its own, and a number is scale * q, q in [-127, 127].
enum class Precision { kFloat32, kBfloat16, kInt8 };
const char* PrecisionName(Precision precision);  // "float32", "bfloat16", "int8"
std::optional<Precision> PrecisionFromName(absl::string_view name);

// Bytes from one stored row to the next: 4 or 2 a number; kInt8: the scale (float32), then 1 a number, then zeros up to
// a multiple of 4.
inline size_t StoredRowBytes(Precision precision, size_t columns) {
  return precision == Precision::kFloat32    ? columns * sizeof(float)
         : precision == Precision::kBfloat16 ? columns * sizeof(uint16_t)
                                             : sizeof(float) + (columns + 3) / 4 * 4;
}

// Products sum up to so many columns of int8 exactly: 255 * 128 * 65,793 < 2^31, u8 inputs times weights.
inline constexpr size_t kMaxInt8Columns = 65'793;

// Stores a row, each number rounded to the nearest one, ties to even: StoredRowBytes to `out`. Numbers are finite.
void StoreRow(Precision precision, absl::Span<const float> row, std::byte* out);

// A view of stored rows, which must outlive it.
struct StoredMatrix {
  Precision precision = Precision::kFloat32;
  const std::byte* data = nullptr;
  size_t rows = 0;
  size_t columns = 0;

  const std::byte* row(size_t r) const { return data + r * StoredRowBytes(precision, columns); }
  // What is stored in [first, first + count) of a row, exactly. Here, as the gather calls it for every id.
  void ReadPart(size_t r, size_t first, size_t count, float* out) const {
    const std::byte* from = row(r);
    if (precision == Precision::kFloat32) {
      std::memcpy(out, from + first * sizeof(float), count * sizeof(float));
    } else if (precision == Precision::kBfloat16) {
      from += first * sizeof(uint16_t);
      for (size_t d = 0; d < count; ++d) {
        uint16_t half;
        std::memcpy(&half, from + d * sizeof(half), sizeof(half));
        const uint32_t bits = uint32_t{half} << 16;
        std::memcpy(out + d, &bits, sizeof(bits));
      }
    } else {
      const float scale = Scale(r);
      from += sizeof(scale) + first;
      for (size_t d = 0; d < count; ++d) out[d] = scale * static_cast<float>(static_cast<int8_t>(from[d]));
    }
  }
  void ReadRow(size_t r, float* out) const { ReadPart(r, 0, columns, out); }
  // kInt8 alone.
  float Scale(size_t r) const {
    float scale;
    std::memcpy(&scale, row(r), sizeof(scale));
    return scale;
  }
};

}  // namespace hilomoe

#endif  // HILOMOE_MODEL_STORED_MATRIX_H_
