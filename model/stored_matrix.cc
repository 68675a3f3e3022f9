#include "model/stored_matrix.h"

#include <algorithm>
#include <cmath>

namespace hilomoe {
namespace {

constexpr float kLargestInt8 = 127;
constexpr const char* kNames[] = {"float32", "bfloat16", "int8"};

uint16_t ToBfloat16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  if (x != x) return 0x7fc0;
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace

const char* PrecisionName(Precision precision) { return kNames[static_cast<int>(precision)]; }

std::optional<Precision> PrecisionFromName(absl::string_view name) {
  for (int i = 0; i < 3; ++i) {
    if (name == kNames[i]) return static_cast<Precision>(i);
  }
  return std::nullopt;
}

void StoreRow(Precision precision, absl::Span<const float> row, std::byte* out) {
  if (precision == Precision::kFloat32) {
    std::memcpy(out, row.data(), row.size() * sizeof(float));
    return;
  }
  if (precision == Precision::kBfloat16) {
    for (size_t d = 0; d < row.size(); ++d) {
      const uint16_t half = ToBfloat16(row[d]);
      std::memcpy(out + d * sizeof(half), &half, sizeof(half));
    }
    return;
  }
  float largest = 0;
  for (const float x : row) largest = std::max(largest, std::fabs(x));
  const float scale = largest / kLargestInt8;
  std::memset(out, 0, StoredRowBytes(precision, row.size()));
  std::memcpy(out, &scale, sizeof(scale));
  out += sizeof(scale);
  // A row so small that its scale is no normal number is stored as zeros.
  for (size_t d = 0; d < row.size() && std::isnormal(scale); ++d) {
    const float q = std::clamp(std::nearbyint(row[d] / scale), -kLargestInt8, kLargestInt8);
    out[d] = static_cast<std::byte>(static_cast<int8_t>(q));
  }
}

}  // namespace hilomoe
