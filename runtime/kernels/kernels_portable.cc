// Plain loops, one row after the other (products apart: portable_product.h): what every machine can run, and how the
// vectorised sets are to be read. Inner loops run over contiguous columns, so that a compiler may vectorise them with
// what its target always has.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "runtime/kernels/kernel_tables.h"
#include "runtime/kernels/kernels.h"
#include "runtime/kernels/portable_product.h"
#include "runtime/kernels/vector_common.h"

namespace hilomoe::kernels {
namespace {

// Independent partial sums of a reduction: four registers of four lanes hide the latency of an addition.
constexpr int kPartialSums = 16;
// Columns of an output row accumulated at once: 8 of 16 registers of four lanes.
constexpr int kTileColumns = 32;

// z[i] = tau * (query_scale * r[i] + sum_c scores[c] * G[i, c]) + c[i] of one layer, over the scores known so far.
void Logits(const Routing& routing, int layer, float query_scale, const float* r, const float* scores, float* z) {
  const int known = layer * routing.experts;
  for (int i = 0; i < routing.experts; ++i) {
    const int stack = routing.layers * routing.experts;
    float sum = query_scale * r[known + i];
    for (int c = 0; c < known; ++c) sum += scores[c] * routing.gram[Offset(c, stack) + known + i];
    z[i] = routing.logit_scale[layer] * sum + routing.logit_offset[known + i];
  }
}

// Logits to scores in place; where `kept` is given, over those experts, and 0 for the others.
void Softmax(int experts, const bool* kept, float* z) {
  float largest = z[0];
  for (int i = 1; i < experts; ++i) largest = z[i] > largest ? z[i] : largest;
  float sum = 0;
  for (int i = 0; i < experts; ++i) {
    const float x = z[i] - largest;
    const bool zero = (kept != nullptr && !kept[i]) || x < kSmallestExponent;
    z[i] = zero ? 0.0f : std::exp(x);
    sum += z[i];
  }
  const float scale = 1.0f / sum;
  for (int i = 0; i < experts; ++i) {
    if (kept == nullptr || kept[i]) z[i] *= scale;
  }
}

bool Larger(float a, float b) { return a > b || (a != a && b == b); }

void SelectTopK(int experts, int top_k, const float* z, bool* kept) {
  for (int i = 0; i < experts; ++i) kept[i] = false;
  for (int n = 0; n < top_k; ++n) {
    int best = -1;
    for (int i = 0; i < experts; ++i) {
      if (!kept[i] && (best < 0 || Larger(z[i], z[best]))) best = i;
    }
    kept[best] = true;
  }
}

void RouteDense(const Routing& routing, int rows, const float* a, const float* r, int lda, const float* inverse_norm,
                float* gated, int ldg, float* scores, int lds) {
  const int stack = routing.layers * routing.experts;
  float row_scores[kMaxStackedExperts];
  for (int row = 0; row < rows; ++row) {
    const float* row_a = a + Offset(row, lda);
    const float* row_r = r != nullptr ? r + Offset(row, lda) : row_a;
    const float query_scale = routing.query_scale * (inverse_norm != nullptr ? inverse_norm[row] : 1.0f);
    for (int layer = 0; layer < routing.layers; ++layer) {
      float* z = row_scores + layer * routing.experts;
      Logits(routing, layer, query_scale, row_r, row_scores, z);
      Softmax(routing.experts, nullptr, z);
    }
    float* row_gated = gated + Offset(row, ldg);
    for (int c = 0; c < stack; ++c) row_gated[c] = row_a[c] * row_scores[c];
    if (scores != nullptr) {
      for (int c = 0; c < stack; ++c) scores[Offset(row, lds) + c] = row_scores[c];
    }
  }
}

void RouteTopK(const Routing& routing, int rows, const float* a, const float* r, int lda, const float* inverse_norm,
               float* gated, int ldg, int32_t* index, int ldi, float* scores, int lds) {
  const int stack = routing.layers * routing.experts;
  float row_scores[kMaxStackedExperts];
  bool kept[kMaxExperts];
  for (int row = 0; row < rows; ++row) {
    const float* row_a = a + Offset(row, lda);
    const float* row_r = r != nullptr ? r + Offset(row, lda) : row_a;
    float* row_gated = gated + Offset(row, ldg);
    int32_t* row_index = index + Offset(row, ldi);
    const float query_scale = routing.query_scale * (inverse_norm != nullptr ? inverse_norm[row] : 1.0f);
    int out = 0;
    for (int layer = 0; layer < routing.layers; ++layer) {
      const int first = layer * routing.experts;
      float* z = row_scores + first;
      Logits(routing, layer, query_scale, row_r, row_scores, z);
      SelectTopK(routing.experts, routing.top_k, z, kept);
      Softmax(routing.experts, kept, z);
      for (int i = 0; i < routing.experts; ++i) {
        if (!kept[i]) continue;
        row_gated[out] = row_a[first + i] * z[i];
        row_index[out] = first + i;
        ++out;
      }
    }
    if (scores != nullptr) {
      for (int c = 0; c < stack; ++c) scores[Offset(row, lds) + c] = row_scores[c];
    }
  }
}

// The columns from `column` on, kColumns at a time; returns the first column that is left. The width of the tile is
// a constant so that its sums stay in registers. `index` names the n rows of U.
template <int kColumns>
int AddTiles(int column, int width, int n, const float* gated, const int32_t* index, const float* u, int ldu,
             const float* bias, Activation activation, float* y) {
  for (; column + kColumns <= width; column += kColumns) {
    float sum[kColumns];
    for (int c = 0; c < kColumns; ++c) sum[c] = y[column + c] + bias[column + c];
    for (int j = 0; j < n; ++j) {
      const float* u_row = u + Offset(index[j], ldu) + column;
      for (int c = 0; c < kColumns; ++c) sum[c] += gated[j] * u_row[c];
    }
    for (int c = 0; c < kColumns; ++c) y[column + c] = activation == Activation::kRelu && sum[c] < 0 ? 0.0f : sum[c];
  }
  return column;
}

void AddExpertsToRow(int width, int n, const float* gated, const int32_t* index, const float* u, int ldu,
                     const float* bias, Activation activation, float* y) {
  int column = AddTiles<kTileColumns>(0, width, n, gated, index, u, ldu, bias, activation, y);
  column = AddTiles<kTileColumns / 4>(column, width, n, gated, index, u, ldu, bias, activation, y);
  AddTiles<1>(column, width, n, gated, index, u, ldu, bias, activation, y);
}

void AddExpertsTopK(int rows, int width, int n, const float* gated, int ldg, const int32_t* index, int ldi,
                    const float* u, int ldu, const float* bias, Activation activation, float* y, int ldy) {
  for (int r = 0; r < rows; ++r) {
    AddExpertsToRow(width, n, gated + Offset(r, ldg), index + Offset(r, ldi), u, ldu, bias, activation,
                    y + Offset(r, ldy));
  }
}

float Dot(int width, const float* x, const float* w) {
  float sum[kPartialSums] = {};
  int d = 0;
  for (; d + kPartialSums <= width; d += kPartialSums) {
    for (int i = 0; i < kPartialSums; ++i) sum[i] += x[d + i] * w[d + i];
  }
  for (int i = 0; d + i < width; ++i) sum[i] += x[d + i] * w[d + i];
  for (int i = 1; i < kPartialSums; ++i) sum[0] += sum[i];
  return sum[0];
}

void SquaredNorm(int rows, int width, const float* x, int ldx, float* out) {
  for (int r = 0; r < rows; ++r) out[r] = Dot(width, x + Offset(r, ldx), x + Offset(r, ldx));
}

void Head(int rows, int width, const float* x, int ldx, const float* weight, float bias, float* logit) {
  for (int r = 0; r < rows; ++r) logit[r] = bias + Dot(width, x + Offset(r, ldx), weight);
}

// From the side on which the exponential cannot overflow.
float Sigmoid(float x) {
  const float e = std::exp(x < 0 ? x : -x);
  return (x < 0 ? e : 1.0f) / (1.0f + e);
}

void Silu(int rows, int width, float* y, int ldy) {
  for (int r = 0; r < rows; ++r) {
    float* row = y + Offset(r, ldy);
    for (int c = 0; c < width; ++c) row[c] *= Sigmoid(row[c]);
  }
}

void Dice(int rows, int width, const float* mean, const float* inverse_deviation, const float* a, float* y, int ldy) {
  for (int r = 0; r < rows; ++r) {
    float* row = y + Offset(r, ldy);
    for (int c = 0; c < width; ++c) {
      const float p = Sigmoid((row[c] - mean[c]) * inverse_deviation[c]);
      row[c] *= p + a[c] * (1.0f - p);
    }
  }
}

void Attend(int n, int width, const float* history, int ldh, const float* transposed, int ldt, const float* p,
            float* scores, float* out) {
  for (int d = 0; d < width; ++d) out[d] = 0;
  if (n == 0) return;
  for (int j = 0; j < n; ++j) scores[j] = 0;
  for (int d = 0; d < width; ++d) {
    const float* row = transposed + Offset(d, ldt);
    for (int j = 0; j < n; ++j) scores[j] += p[d] * row[j];
  }
  Softmax(n, nullptr, scores);
  for (int j = 0; j < n; ++j) {
    const float* row = history + Offset(j, ldh);
    for (int d = 0; d < width; ++d) out[d] += scores[j] * row[d];
  }
}

void Add(int width, const float* x, float* out) {
  for (int d = 0; d < width; ++d) out[d] += x[d];
}

uint32_t ToBfloat16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return value != value ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

void RoundToBfloat16(int rows, int width, const float* x, int ldx, uint32_t* cells, int ldc) {
  for (int row = 0; row < rows; ++row) {
    const float* from = x + Offset(row, ldx);
    uint32_t* to = cells + Offset(row, ldc);
    for (int d = 0; d < width; d += 2) {
      to[d / 2] = ToBfloat16(from[d]) | (d + 1 < width ? ToBfloat16(from[d + 1]) << 16 : 0);
    }
  }
}

void PairToBfloat16(int rows, int width, const float* x, int ldx, uint32_t* cells, int ldc) {
  for (int row = 0; row < rows; row += 2, cells += ldc) {
    const float* low = x + Offset(row, ldx);
    const float* high = low + ldx;
    for (int d = 0; d < width; ++d) cells[d] = ToBfloat16(low[d]) | (row + 1 < rows ? ToBfloat16(high[d]) << 16 : 0);
  }
}

void Quantise(int rows, int width, const float* x, int ldx, const float* factor, uint32_t* cells, int ldc,
              float* scale) {
  for (int row = 0; row < rows; ++row) {
    const float* from = x + Offset(row, ldx);
    uint32_t* to = cells + Offset(row, ldc);
    const auto number = [from, factor](int d) { return factor == nullptr ? from[d] : from[d] * factor[d]; };
    float largest = 0;
    for (int d = 0; d < width; ++d) {
      const float magnitude = std::fabs(number(d));
      if (magnitude > largest || magnitude != magnitude) largest = magnitude;
      if (largest != largest) break;
    }
    scale[row] = largest * (1.0f / 127);
    const float inverse = largest >= kSmallestMagnitude ? 127 / largest : 0;
    for (int d = 0; d < width; d += 4) {
      uint32_t cell = 0;
      for (int i = 0; i < 4; ++i) {
        // The nearest, ties to even. Not a number only where the row's scale is none, or infinite.
        const float value = d + i < width ? number(d + i) * inverse : 0;
        const int32_t q = value == value ? static_cast<int32_t>(std::nearbyint(value)) : 0;
        cell |= static_cast<uint32_t>(q + 128) << 8 * i;
      }
      to[d / 4] = cell;
    }
  }
}

}  // namespace

const Kernels kPortableKernels = {
    .instruction_set = InstructionSet::kPortable,
    .name = "portable",
    .route_dense = RouteDense,
    .route_top_k = RouteTopK,
    .add_experts_top_k = AddExpertsTopK,
    .squared_norm = SquaredNorm,
    .head = Head,
    .silu = Silu,
    .dice = Dice,
    .attend = Attend,
    .add = Add,
    .product = {PortableProduct<PortableFloat32>, PortableProduct<PortableBfloat16>, PortableProduct<PortableInt8>},
    .round_to_bfloat16 = RoundToBfloat16,
    .pair_to_bfloat16 = PairToBfloat16,
    .quantise = Quantise,
};

}  // namespace hilomoe::kernels
