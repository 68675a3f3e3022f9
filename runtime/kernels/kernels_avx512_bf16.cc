// AVX-512-BF16: bfloat16 products, two columns a step.
#include <immintrin.h>

#include "runtime/kernels/kernel_tables.h"
#include "runtime/kernels/kernels.h"
#include "runtime/kernels/vector_avx512.h"
#include "runtime/kernels/vector_product.h"

namespace hilomoe::kernels {
namespace {

struct Bfloat16Product : Avx512Tile {
  using Sum = __m512;
  using X = __m512i;
  using W = __m512i;
  static constexpr bool kInteger = false;
  static Sum Zero() { return _mm512_setzero_ps(); }
  static X Spread(const uint32_t* cell) { return _mm512_set1_epi32(static_cast<int>(*cell)); }
  static W Load(const uint32_t* cells) { return _mm512_load_si512(cells); }
  static Sum Step(Sum sum, X x, W w) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(x), reinterpret_cast<__m512bh>(w));
  }
};

// 32 numbers, those of `low` in the lower half. Subnormals become zero, as they do in the product.
__m512i Round(__m512 low, __m512 high) { return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)); }

__m512 LoadUpTo(const float* p, int count) {
  return count >= 16 ? _mm512_loadu_ps(p) : count > 0 ? Avx512::LoadFirst(p, count) : _mm512_setzero_ps();
}

void RoundToBfloat16(int rows, int width, const float* x, int ldx, uint32_t* cells, int ldc) {
  for (int r = 0; r < rows; ++r) {
    const float* from = x + Offset(r, ldx);
    uint32_t* to = cells + Offset(r, ldc);
    for (int d = 0; d < width; d += 32) {
      const __m512i rounded = Round(LoadUpTo(from + d, width - d), LoadUpTo(from + d + 16, width - d - 16));
      _mm512_mask_storeu_epi32(to + d / 2, Avx512::First(AtMost(16, (width - d + 1) / 2)), rounded);
    }
  }
}

void PairToBfloat16(int rows, int width, const float* x, int ldx, uint32_t* cells, int ldc) {
  // Numbers i and 16 + i side by side.
  alignas(64) int16_t order[32];
  for (int i = 0; i < 32; ++i) order[i] = static_cast<int16_t>(i / 2 + i % 2 * 16);
  const __m512i interleaved = _mm512_load_si512(order);
  for (int r = 0; r < rows; r += 2, cells += ldc) {
    const float* low = x + Offset(r, ldx);
    const int high_width = r + 1 < rows ? width : 0;
    for (int d = 0; d < width; d += 16) {
      const __m512 high = high_width > d ? LoadUpTo(low + ldx + d, high_width - d) : _mm512_setzero_ps();
      const __m512i rounded = _mm512_permutexvar_epi16(interleaved, Round(LoadUpTo(low + d, width - d), high));
      _mm512_mask_storeu_epi32(cells + d, Avx512::First(AtMost(16, width - d)), rounded);
    }
  }
}

}  // namespace

const Bfloat16Functions kAvx512Bf16Functions = {Product<Bfloat16Product>, RoundToBfloat16, PairToBfloat16};

}  // namespace hilomoe::kernels
