#include "tools/train/elementwise.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "tools/train/target_clones.h"

namespace hilomoe {
namespace {

// Four rows at a time, so that the sums, twice as wide as what is added, are read and written a quarter as often.
template <typename T>
HILOMOE_INLINE void ColumnSumsLoop(size_t rows, size_t n, const T* __restrict z, size_t ldz, double* __restrict sum,
                                   double* __restrict squared) {
  for (; rows >= 4; rows -= 4, z += 4 * ldz) {
    for (size_t c = 0; c < n; ++c) {
      const double z0 = z[c], z1 = z[ldz + c], z2 = z[2 * ldz + c], z3 = z[3 * ldz + c];
      sum[c] += (z0 + z1) + (z2 + z3);
      squared[c] += (z0 * z0 + z1 * z1) + (z2 * z2 + z3 * z3);
    }
  }
  for (; rows > 0; --rows, z += ldz) {
    for (size_t c = 0; c < n; ++c) {
      const double value = z[c];
      sum[c] += value;
      squared[c] += value * value;
    }
  }
}

template <typename T>
HILOMOE_INLINE void DropoutLoop(size_t count, const DropoutMask& dropout, size_t element, T* __restrict x) {
  const uint32_t first = static_cast<uint32_t>(element);
  const T factor = T(dropout.scale());
  const DropoutMask mask = dropout;
  for (size_t i = 0; i < count; ++i) {
    const T kept = x[i] * factor;
    x[i] = mask.Kept(first + static_cast<uint32_t>(i)) ? kept : T(0);
  }
}

template <typename T>
HILOMOE_INLINE void NormaliseLoop(size_t rows, size_t n, const T* __restrict z, size_t ldz, const T* __restrict scale,
                                  const T* __restrict shift, bool relu, const DropoutMask& dropout, size_t element,
                                  T* __restrict out) {
  for (size_t r = 0; r < rows; ++r, z += ldz, out += n, element += n) {
    if (relu && dropout.active()) {
      const uint32_t first = static_cast<uint32_t>(element);
      const T factor = T(dropout.scale());
      const DropoutMask mask = dropout;
      for (size_t c = 0; c < n; ++c) {
        const T value = z[c] * scale[c] + shift[c];
        const T kept = mask.Kept(first + static_cast<uint32_t>(c)) ? value * factor : T(0);
        out[c] = value > 0 ? kept : T(0);
      }
      continue;
    }
    if (relu) {
      for (size_t c = 0; c < n; ++c) {
        const T value = z[c] * scale[c] + shift[c];
        out[c] = value > 0 ? value : T(0);
      }
    } else {
      for (size_t c = 0; c < n; ++c) out[c] = z[c] * scale[c] + shift[c];
    }
    if (dropout.active()) DropoutLoop(n, dropout, element, out);
  }
}

template <typename T>
HILOMOE_INLINE void ReluBackwardLoop(size_t rows, size_t n, const T* __restrict out, const T* __restrict dout, T factor,
                                     T* __restrict dz, size_t lddz) {
  for (size_t r = 0; r < rows; ++r, out += n, dout += n, dz += lddz) {
    for (size_t c = 0; c < n; ++c) {
      const T passed = dout[c] * factor;  // computed either way: a branch on every second element costs more
      dz[c] = out[c] > 0 ? passed : T(0);
    }
  }
}

// Sums of four rows in T, beyond that in double.
template <typename T>
HILOMOE_INLINE void BackwardSumsLoop(size_t rows, size_t n, const T* __restrict z, const T* __restrict dz, size_t ld,
                                     const T* __restrict centre, const T* __restrict inverse_deviation,
                                     double* __restrict sum, double* __restrict sum_normalised) {
  for (; rows >= 4; rows -= 4, z += 4 * ld, dz += 4 * ld) {
    for (size_t c = 0; c < n; ++c) {
      const T d0 = dz[c], d1 = dz[ld + c], d2 = dz[2 * ld + c], d3 = dz[3 * ld + c], mean = centre[c];
      const T product =
          (d0 * (z[c] - mean) + d1 * (z[ld + c] - mean)) + (d2 * (z[2 * ld + c] - mean) + d3 * (z[3 * ld + c] - mean));
      sum[c] += (d0 + d1) + (d2 + d3);
      sum_normalised[c] += product * inverse_deviation[c];
    }
  }
  for (; rows > 0; --rows, z += ld, dz += ld) {
    for (size_t c = 0; c < n; ++c) {
      sum[c] += dz[c];
      sum_normalised[c] += dz[c] * ((z[c] - centre[c]) * inverse_deviation[c]);
    }
  }
}

template <typename T>
HILOMOE_INLINE void ReluBackwardSumsLoop(size_t rows, size_t n, const T* __restrict out, const T* __restrict dout,
                                         T factor, const T* __restrict z, T* __restrict dz, size_t ld,
                                         const T* __restrict centre, const T* __restrict inverse_deviation,
                                         double* __restrict sum, double* __restrict sum_normalised) {
  for (; rows >= 4; rows -= 4, out += 4 * n, dout += 4 * n, z += 4 * ld, dz += 4 * ld) {
    for (size_t c = 0; c < n; ++c) {
      const T mean = centre[c];
      T total = 0, product = 0;
      for (size_t i = 0; i < 4; ++i) {
        const T passed = dout[i * n + c] * factor;
        const T d = out[i * n + c] > 0 ? passed : T(0);
        dz[i * ld + c] = d;
        total += d;
        product += d * (z[i * ld + c] - mean);
      }
      sum[c] += total;
      sum_normalised[c] += product * inverse_deviation[c];
    }
  }
  ReluBackwardLoop(rows, n, out, dout, factor, dz, ld);
  BackwardSumsLoop(rows, n, z, dz, ld, centre, inverse_deviation, sum, sum_normalised);
}

template <typename T>
HILOMOE_INLINE void NormaliseBackwardLoop(size_t rows, size_t n, const T* __restrict z, size_t ld,
                                          const T* __restrict scale, const T* __restrict centre, const T* __restrict a,
                                          const T* __restrict b, T* __restrict dz) {
  for (size_t r = 0; r < rows; ++r, z += ld, dz += ld) {
    for (size_t c = 0; c < n; ++c) dz[c] = scale[c] * (dz[c] - a[c] - (z[c] - centre[c]) * b[c]);
  }
}

// e^x = 2^n e^r, n = round(x / ln 2), ln 2 in two parts; e^r by its Taylor polynomial of degree 7 on |r| <= ln(2)/2,
// whose rest is below 1e-8. Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
HILOMOE_INLINE void ExponentialLoop(size_t count, float* __restrict x) {
  constexpr float kRound = 12582912.0F;
  for (size_t i = 0; i < count; ++i) {
    const float value = x[i] < -87.33F ? -87.33F : x[i];
    const float shifted = value * 1.44269504F + kRound;
    const float n = shifted - kRound;
    const float r = (value - n * 0.693359375F) + n * 2.12194440e-4F;
    float p = 1.0F / 5040;
    p = p * r + 1.0F / 720;
    p = p * r + 1.0F / 120;
    p = p * r + 1.0F / 24;
    p = p * r + 1.0F / 6;
    p = p * r + 0.5F;
    p = p * r + 1.0F;
    p = p * r + 1.0F;
    const int32_t power = (static_cast<int32_t>(n) + 127) << 23;
    x[i] = x[i] < -87.33F ? 0.0F : p * std::bit_cast<float>(power);
  }
}

// ln x = e ln 2 + ln m with m in [sqrt(1/2), sqrt(2)); ln m = 2 artanh(t), t = (m - 1) / (m + 1), by its series to t^9,
// whose rest is below 1e-9.
HILOMOE_INLINE void LogarithmLoop(size_t count, float* __restrict x) {
  constexpr int32_t kSqrtHalf = 0x3f3504f3;
  for (size_t i = 0; i < count; ++i) {
    const int32_t bits = std::bit_cast<int32_t>(x[i]);
    const int32_t exponent = (bits - kSqrtHalf) >> 23;
    const float m = std::bit_cast<float>(bits - exponent * (1 << 23));
    const float t = (m - 1) / (m + 1), t2 = t * t;
    const float series = 1.0F + t2 * (1.0F / 3 + t2 * (1.0F / 5 + t2 * (1.0F / 7 + t2 * (1.0F / 9))));
    x[i] = x[i] == x[i] ? static_cast<float>(exponent) * 0.693147181F + 2 * t * series : x[i];
  }
}

// kParts sums side by side: a single one would wait for each addition.
constexpr size_t kParts = 32;

template <typename T>
HILOMOE_INLINE T DotProduct(size_t n, const T* __restrict x, const T* __restrict y) {
  T part[kParts] = {};
  size_t d = 0;
  for (; d + kParts <= n; d += kParts) {
    for (size_t i = 0; i < kParts; ++i) part[i] += x[d + i] * y[d + i];
  }
  T sum = 0;
  for (; d < n; ++d) sum += x[d] * y[d];
  for (size_t i = 0; i < kParts; ++i) sum += part[i];
  return sum;
}

template <typename T>
HILOMOE_INLINE void SquaredNormLoop(size_t rows, size_t n, const T* x, size_t ldx, T* out) {
  for (size_t r = 0; r < rows; ++r) out[r] = DotProduct(n, x + r * ldx, x + r * ldx);
}

template <typename T>
HILOMOE_INLINE void DotProductLoop(size_t rows, size_t n, const T* x, size_t ldx, const T* w, T* out) {
  for (size_t r = 0; r < rows; ++r) out[r] += DotProduct(n, x + r * ldx, w);
}

template <typename T, size_t kWidth>
HILOMOE_INLINE void GatherFixed(size_t rows, const T* table, const uint32_t* ids, T* __restrict out, size_t ldo) {
  for (size_t r = 0; r < rows; ++r) {
    for (size_t j = 0; j < kWidth; ++j) out[r * ldo + j] = table[ids[r] * kWidth + j];
  }
}

// The usual widths without a call and a loop per row.
template <typename T>
HILOMOE_INLINE void GatherLoop(size_t rows, size_t n, const T* table, const uint32_t* ids, T* __restrict out,
                               size_t ldo) {
  if (n == 8) return GatherFixed<T, 8>(rows, table, ids, out, ldo);
  if (n == 10) return GatherFixed<T, 10>(rows, table, ids, out, ldo);
  if (n == 16) return GatherFixed<T, 16>(rows, table, ids, out, ldo);
  if (n == 32) return GatherFixed<T, 32>(rows, table, ids, out, ldo);
  for (size_t r = 0; r < rows; ++r) std::copy_n(table + ids[r] * n, n, out + r * ldo);
}

HILOMOE_INLINE void AdamLoop(size_t count, const AdamUpdate& u, const float* __restrict gradient, float* __restrict m,
                             float* __restrict v, float* __restrict weight) {
  const AdamUpdate update = u;
  for (size_t i = 0; i < count; ++i) {
    const float g = update.scale * ((gradient != nullptr ? gradient[i] : 0.0F) + update.l2 * weight[i]);
    m[i] += (1 - update.beta1) * (g - m[i]);
    v[i] += (1 - update.beta2) * (g * g - v[i]);
    weight[i] -= update.rate * (m[i] * update.correction1) / (std::sqrt(v[i] * update.correction2) + update.epsilon);
  }
}

}  // namespace

HILOMOE_CLONES void AddColumnSums(size_t rows, size_t n, const float* z, size_t ldz, double* sum, double* squared) {
  ColumnSumsLoop(rows, n, z, ldz, sum, squared);
}
void AddColumnSums(size_t rows, size_t n, const double* z, size_t ldz, double* sum, double* squared) {
  ColumnSumsLoop(rows, n, z, ldz, sum, squared);
}

HILOMOE_CLONES void Normalise(size_t rows, size_t n, const float* z, size_t ldz, const float* scale, const float* shift,
                              bool relu, const DropoutMask& dropout, size_t element, float* out) {
  NormaliseLoop(rows, n, z, ldz, scale, shift, relu, dropout, element, out);
}
void Normalise(size_t rows, size_t n, const double* z, size_t ldz, const double* scale, const double* shift, bool relu,
               const DropoutMask& dropout, size_t element, double* out) {
  NormaliseLoop(rows, n, z, ldz, scale, shift, relu, dropout, element, out);
}

HILOMOE_CLONES void ApplyDropout(size_t count, const DropoutMask& dropout, size_t element, float* x) {
  DropoutLoop(count, dropout, element, x);
}
void ApplyDropout(size_t count, const DropoutMask& dropout, size_t element, double* x) {
  DropoutLoop(count, dropout, element, x);
}

HILOMOE_CLONES void ReluBackward(size_t rows, size_t n, const float* out, const float* dout, float factor, float* dz,
                                 size_t lddz) {
  ReluBackwardLoop(rows, n, out, dout, factor, dz, lddz);
}
void ReluBackward(size_t rows, size_t n, const double* out, const double* dout, double factor, double* dz,
                  size_t lddz) {
  ReluBackwardLoop(rows, n, out, dout, factor, dz, lddz);
}

HILOMOE_CLONES void ReluBackwardSums(size_t rows, size_t n, const float* out, const float* dout, float factor,
                                     const float* z, float* dz, size_t ld, const float* centre,
                                     const float* inverse_deviation, double* sum, double* sum_normalised) {
  ReluBackwardSumsLoop(rows, n, out, dout, factor, z, dz, ld, centre, inverse_deviation, sum, sum_normalised);
}
void ReluBackwardSums(size_t rows, size_t n, const double* out, const double* dout, double factor, const double* z,
                      double* dz, size_t ld, const double* centre, const double* inverse_deviation, double* sum,
                      double* sum_normalised) {
  ReluBackwardSumsLoop(rows, n, out, dout, factor, z, dz, ld, centre, inverse_deviation, sum, sum_normalised);
}

HILOMOE_CLONES void AddBackwardSums(size_t rows, size_t n, const float* z, const float* dz, size_t ld,
                                    const float* centre, const float* inverse_deviation, double* sum,
                                    double* sum_normalised) {
  BackwardSumsLoop(rows, n, z, dz, ld, centre, inverse_deviation, sum, sum_normalised);
}
void AddBackwardSums(size_t rows, size_t n, const double* z, const double* dz, size_t ld, const double* centre,
                     const double* inverse_deviation, double* sum, double* sum_normalised) {
  BackwardSumsLoop(rows, n, z, dz, ld, centre, inverse_deviation, sum, sum_normalised);
}

HILOMOE_CLONES void NormaliseBackward(size_t rows, size_t n, const float* z, size_t ld, const float* scale,
                                      const float* centre, const float* a, const float* b, float* dz) {
  NormaliseBackwardLoop(rows, n, z, ld, scale, centre, a, b, dz);
}
void NormaliseBackward(size_t rows, size_t n, const double* z, size_t ld, const double* scale, const double* centre,
                       const double* a, const double* b, double* dz) {
  NormaliseBackwardLoop(rows, n, z, ld, scale, centre, a, b, dz);
}

HILOMOE_CLONES void Exponentials(size_t count, float* x) { ExponentialLoop(count, x); }
void Exponentials(size_t count, double* x) {
  for (size_t i = 0; i < count; ++i) x[i] = std::exp(x[i]);
}

HILOMOE_CLONES void Logarithms(size_t count, float* x) { LogarithmLoop(count, x); }
void Logarithms(size_t count, double* x) {
  for (size_t i = 0; i < count; ++i) x[i] = std::log(x[i]);
}

HILOMOE_CLONES void SquaredNorms(size_t rows, size_t n, const float* x, size_t ldx, float* out) {
  SquaredNormLoop(rows, n, x, ldx, out);
}
void SquaredNorms(size_t rows, size_t n, const double* x, size_t ldx, double* out) {
  SquaredNormLoop(rows, n, x, ldx, out);
}

HILOMOE_CLONES void AddDotProducts(size_t rows, size_t n, const float* x, size_t ldx, const float* w, float* out) {
  DotProductLoop(rows, n, x, ldx, w, out);
}
void AddDotProducts(size_t rows, size_t n, const double* x, size_t ldx, const double* w, double* out) {
  DotProductLoop(rows, n, x, ldx, w, out);
}

HILOMOE_CLONES void GatherEmbeddings(size_t rows, size_t n, const float* table, const uint32_t* ids, float* out,
                                     size_t ldo) {
  GatherLoop(rows, n, table, ids, out, ldo);
}
void GatherEmbeddings(size_t rows, size_t n, const double* table, const uint32_t* ids, double* out, size_t ldo) {
  GatherLoop(rows, n, table, ids, out, ldo);
}

HILOMOE_CLONES void UpdateAdam(size_t count, const AdamUpdate& update, const float* gradient, float* m, float* v,
                               float* weight) {
  if (gradient == nullptr) {
    AdamLoop(count, update, nullptr, m, v, weight);
  } else {
    AdamLoop(count, update, gradient, m, v, weight);
  }
}

}  // namespace hilomoe
