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

}  // namespace

const ProductFunction kAvx512Bf16Bfloat16Product = Product<Bfloat16Product>;

}  // namespace hilomoe::kernels
