// AVX-512F as a vector type of vector_common.h: 16 lanes, 32 registers. Nothing beyond the foundation set is used.
#ifndef HILOMOE_RUNTIME_KERNELS_VECTOR_AVX512_H_
#define HILOMOE_RUNTIME_KERNELS_VECTOR_AVX512_H_

#include <immintrin.h>

#include <cstdint>

#include "runtime/kernels/kernels.h"
#include "runtime/kernels/vector_common.h"

namespace hilomoe::kernels {
// Every file that includes this has a type of its own, so that what is made of it is compiled with its flags alone.
namespace {

struct Avx512 {
  using Float = __m512;
  using Int = __m512i;
  using Mask = __mmask16;

  static constexpr int kLanes = 16;
  // Every multiply-add loads its own vector of U, so what counts is that 64 rows of it, 16 KiB, stay in L1 (L2 gives
  // half the width a cycle); 4 chains a row, and rows overlap.
  static constexpr int kTopKVectors = 4;
  // 8 logits share each load of a score: 8 chains hide a latency of 4 at two multiply-adds a cycle.
  static constexpr int kGramExperts = 8;
  // Up to so many rows are routed one by one: alone one takes about a third of the time of a tile.
  static constexpr int kSingleRows = 2;

  static Mask First(int n) { return static_cast<Mask>((1u << n) - 1); }

  static Float Zero() { return _mm512_setzero_ps(); }
  static Float Broadcast(float x) { return _mm512_set1_ps(x); }
  static Float Load(const float* p) { return _mm512_loadu_ps(p); }
  static Float LoadFirst(const float* p, int n) { return _mm512_maskz_loadu_ps(First(n), p); }
  static void Store(float* p, Float x) { _mm512_storeu_ps(p, x); }
  static void StoreFirst(float* p, int n, Float x) { _mm512_mask_storeu_ps(p, First(n), x); }

  static Float Add(Float a, Float b) { return _mm512_add_ps(a, b); }
  static Float Sub(Float a, Float b) { return _mm512_sub_ps(a, b); }
  static Float Mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
  static Float Div(Float a, Float b) { return _mm512_div_ps(a, b); }
  static Float MulAdd(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
  // b where either is NaN.
  static Float Max(Float a, Float b) { return _mm512_max_ps(a, b); }
  static float Sum(Float x) { return _mm512_reduce_add_ps(x); }
  static Float ZeroUnless(Mask m, Float x) { return _mm512_maskz_mov_ps(m, x); }

  // e^x for x <= 0; NaN stays NaN.
  static Float Exp(Float x) {
    const Float smallest = Broadcast(kSmallestExponent);
    const Mask normal = _mm512_cmp_ps_mask(x, smallest, _CMP_NLT_UQ);
    x = Max(smallest, x);  // keeps -inf out of the reduction
    const Float n = _mm512_roundscale_ps(Mul(x, Broadcast(kLog2E)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    Float r = _mm512_fnmadd_ps(n, Broadcast(kLn2High), x);
    r = _mm512_fnmadd_ps(n, Broadcast(kLn2Low), r);
    return _mm512_maskz_scalef_ps(normal, ExpOfReduced<Avx512>(r), n);
  }

  static Int BroadcastInt(int32_t x) { return _mm512_set1_epi32(x); }
  static Int LoadInt(const int32_t* p) { return _mm512_loadu_si512(p); }
  static void StoreInt(int32_t* p, Int x) { _mm512_storeu_si512(p, x); }
  static Int SubInt(Int a, Int b) { return _mm512_sub_epi32(a, b); }
  static Float FromInt(Int x) { return _mm512_cvtepi32_ps(x); }
  static Int ToInt(Float x) { return _mm512_cvtps_epi32(x); }  // to the nearest, ties to even
  static Int ShiftRight(Int x, int bits) { return _mm512_srli_epi32(x, static_cast<unsigned>(bits)); }
  static Int ShiftLeft(Int x, int bits) { return _mm512_slli_epi32(x, static_cast<unsigned>(bits)); }
  static Int OrInt(Int a, Int b) { return _mm512_or_si512(a, b); }
  static Int AddInt(Int a, Int b) { return _mm512_add_epi32(a, b); }
  static Int AndInt(Int a, Int b) { return _mm512_and_si512(a, b); }
  static Int Bits(Float x) { return _mm512_castps_si512(x); }
  static Float Abs(Float x) { return _mm512_castsi512_ps(_mm512_and_si512(Bits(x), BroadcastInt(INT32_MAX))); }
  // The bits of a quiet NaN where x is one, else `otherwise`.
  static Int QuietIfNan(Float x, Int otherwise) {
    return _mm512_mask_mov_epi32(otherwise, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), BroadcastInt(0x7fc00000));
  }
  // The low 16 or 8 bits of each lane, side by side.
  static void StoreLow16(void* p, Int x) { _mm256_storeu_si256(static_cast<__m256i*>(p), _mm512_cvtepi32_epi16(x)); }
  static void StoreLow8(void* p, Int x) { _mm_storeu_si128(static_cast<__m128i*>(p), _mm512_cvtepi32_epi8(x)); }
  // Of four vectors of numbers from 0 to 255.
  static void StoreBytes(uint32_t* p, Int a, Int b, Int c, Int d) {
    StoreLow8(p, a);
    StoreLow8(p + 4, b);
    StoreLow8(p + 8, c);
    StoreLow8(p + 12, d);
  }
  static int32_t Largest(Int x) { return _mm512_reduce_max_epi32(x); }
  static Int MaxInt(Int a, Int b) { return _mm512_max_epi32(a, b); }
  static Int MinInt(Int a, Int b) { return _mm512_min_epi32(a, b); }
  static Int Decrement(Int x, Mask m) { return _mm512_mask_sub_epi32(x, m, x, BroadcastInt(1)); }
  static Mask Greater(Int a, Int b) { return _mm512_cmpgt_epi32_mask(a, b); }
  static Mask Equal(Int a, Int b) { return _mm512_cmpeq_epi32_mask(a, b); }
  static Mask TestBits(Int x, int32_t bits) { return _mm512_test_epi32_mask(x, BroadcastInt(bits)); }
  static Mask And(Mask a, Mask b) { return _mm512_kand(a, b); }
  static Mask Or(Mask a, Mask b) { return _mm512_kor(a, b); }
  static int32_t ToBits(Mask m) { return m; }
  static Mask FromBits(int32_t bits) { return static_cast<Mask>(bits); }

  // Integers in the order of the floats, with -0 equal to 0 and every NaN above all numbers.
  static Int OrderedKey(Float x) {
    const Int bits = _mm512_castps_si512(Add(x, Zero()));  // -0 + 0 = +0
    const Int magnitude_bits_if_negative =
        _mm512_maskz_mov_epi32(_mm512_cmplt_epi32_mask(bits, BroadcastInt(0)), BroadcastInt(INT32_MAX));
    const Int key = _mm512_xor_epi32(bits, magnitude_bits_if_negative);
    return _mm512_mask_mov_epi32(key, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), BroadcastInt(INT32_MAX));
  }

  // Packs the selected lanes of x to out, first + their lane numbers to index; returns how many. Compressed in a
  // register first: the compressing store is microcoded on some CPUs.
  static int StoreSelected(Mask m, Float x, int32_t first, float* out, int32_t* index) {
    const Int lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const int count = __builtin_popcount(m);
    const Int numbers = _mm512_add_epi32(BroadcastInt(first), lanes);
    _mm512_mask_storeu_ps(out, First(count), _mm512_maskz_compress_ps(m, x));
    _mm512_mask_storeu_epi32(index, First(count), _mm512_maskz_compress_epi32(m, numbers));
    return count;
  }

  // First within blocks of 4 x 4 (t[4 g + q] then holds, in its 128-bit lane b, column 4 b + q of rows 4 g to 4 g + 3),
  // then the blocks among one another.
  static void Transpose(Float (&t)[kLanes]) {
    for (int g = 0; g < kLanes; g += 4) {
      const __m512d low01 = _mm512_castps_pd(_mm512_unpacklo_ps(t[g], t[g + 1]));
      const __m512d high01 = _mm512_castps_pd(_mm512_unpackhi_ps(t[g], t[g + 1]));
      const __m512d low23 = _mm512_castps_pd(_mm512_unpacklo_ps(t[g + 2], t[g + 3]));
      const __m512d high23 = _mm512_castps_pd(_mm512_unpackhi_ps(t[g + 2], t[g + 3]));
      t[g] = _mm512_castpd_ps(_mm512_unpacklo_pd(low01, low23));
      t[g + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low01, low23));
      t[g + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high01, high23));
      t[g + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high01, high23));
    }
    for (int q = 0; q < 4; ++q) {
      const Float even01 = _mm512_shuffle_f32x4(t[q], t[q + 4], 0x88);
      const Float odd01 = _mm512_shuffle_f32x4(t[q], t[q + 4], 0xdd);
      const Float even23 = _mm512_shuffle_f32x4(t[q + 8], t[q + 12], 0x88);
      const Float odd23 = _mm512_shuffle_f32x4(t[q + 8], t[q + 12], 0xdd);
      t[q] = _mm512_shuffle_f32x4(even01, even23, 0x88);
      t[q + 4] = _mm512_shuffle_f32x4(odd01, odd23, 0x88);
      t[q + 8] = _mm512_shuffle_f32x4(even01, even23, 0xdd);
      t[q + 12] = _mm512_shuffle_f32x4(odd01, odd23, 0xdd);
    }
  }
};

// The shape of a product's tile (vector_product.h).
struct Avx512Tile {
  using V = Avx512;
  // 6 x 4 sums, 4 vectors of weights and a broadcast take 29 of 32 registers. 24 chains hide a latency of 4 at two
  // multiply-adds a cycle, and 10 loads feed 24 of them. One row's 8 chains take 64 bytes of weights a cycle, as much
  // as L2 gives, even of vdpbf16ps, with whose latency 4 chains took 40.
  static constexpr int kRows = 6;
  static constexpr int Panels(int rows) { return rows <= 2 ? kGroupPanels : 4; }
  static constexpr int kLinesAhead = 0;
};

}  // namespace
}  // namespace hilomoe::kernels

#endif  // HILOMOE_RUNTIME_KERNELS_VECTOR_AVX512_H_
