// AVX-512-VNNI: int8 products, four columns a step, and their inputs, with AVX-512BW, which no CPU with VNNI lacks.
#include <immintrin.h>

#include "runtime/kernels/kernel_tables.h"
#include "runtime/kernels/kernels.h"
#include "runtime/kernels/vector_avx512.h"
#include "runtime/kernels/vector_product.h"

namespace hilomoe::kernels {
namespace {

struct Avx512Bw : Avx512 {
  static void StoreBytes(uint32_t* p, Int a, Int b, Int c, Int d) {
    // In each quarter's bytes four of a, of b, of c, of d.
    const Int bytes = _mm512_packus_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
    const Int order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm512_storeu_si512(p, _mm512_permutexvar_epi32(order, bytes));
  }
};

struct Int8Product : Avx512Tile {
  using Sum = __m512i;
  using X = __m512i;
  using W = __m512i;
  static constexpr bool kInteger = true;
  static Sum Zero() { return _mm512_setzero_si512(); }
  static X Spread(const uint32_t* cell) { return _mm512_set1_epi32(static_cast<int>(*cell)); }
  static W Load(const uint32_t* cells) { return _mm512_load_si512(cells); }
  // Not by its intrinsic: GCC 12 then copies every sum to another register and back in each step.
  static Sum Step(Sum sum, X x, W w) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w));
    return sum;
  }
};

}  // namespace

const Int8Functions kAvx512VnniFunctions = {Product<Int8Product>, Quantise<Avx512Bw>};

}  // namespace hilomoe::kernels
