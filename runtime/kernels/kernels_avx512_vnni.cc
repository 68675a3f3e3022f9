// AVX-512-VNNI: int8 products, four columns a step.
#include <immintrin.h>

#include "runtime/kernels/kernel_tables.h"
#include "runtime/kernels/kernels.h"
#include "runtime/kernels/vector_avx512.h"
#include "runtime/kernels/vector_product.h"

namespace hilomoe::kernels {
namespace {

struct Int8Product : Avx512Tile {
  // GCC spills the sums of larger tiles.
  static constexpr int kRows = 4;
  static constexpr int kPanels = 4;
  using Sum = __m512i;
  using X = __m512i;
  using W = __m512i;
  static constexpr bool kInteger = true;
  static Sum Zero() { return _mm512_setzero_si512(); }
  static X Spread(const uint32_t* cell) { return _mm512_set1_epi32(static_cast<int>(*cell)); }
  static W Load(const uint32_t* cells) { return _mm512_load_si512(cells); }
  static Sum Step(Sum sum, X x, W w) { return _mm512_dpbusd_epi32(sum, x, w); }
};

}  // namespace

const ProductFunction kAvx512VnniInt8Product = Product<Int8Product>;

}  // namespace hilomoe::kernels
