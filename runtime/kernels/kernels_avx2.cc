// AVX2 and FMA: 8 lanes, 16 registers.
#include <immintrin.h>

#include <cstdint>

#include "runtime/kernels/kernel_tables.h"
#include "runtime/kernels/kernels.h"
#include "runtime/kernels/vector_activation.h"
#include "runtime/kernels/vector_experts.h"
#include "runtime/kernels/vector_product.h"
#include "runtime/kernels/vector_routing.h"

namespace hilomoe::kernels {
namespace {

struct Avx2 {
  using Float = __m256;
  using Int = __m256i;
  using Mask = __m256i;  // all bits of a lane

  static constexpr int kLanes = 8;
  // Every multiply-add loads its own vector of U, so what counts is that 64 rows of it, 16 KiB, stay in L1; 8 chains
  // hide a latency of 4 at two multiply-adds a cycle.
  static constexpr int kTopKVectors = 8;
  // 8 logits share each load of a score: 8 chains hide a latency of 4 at two multiply-adds a cycle.
  static constexpr int kGramExperts = 8;
  static constexpr int kSingleRows = 1;  // routed alone a row takes about half the time of a tile of 8

  static Mask First(int n) {
    static constexpr int32_t kWindow[2 * kLanes] = {-1, -1, -1, -1, -1, -1, -1, -1};
    return LoadInt(kWindow + kLanes - n);
  }

  static Float Zero() { return _mm256_setzero_ps(); }
  static Float Broadcast(float x) { return _mm256_set1_ps(x); }
  static Float Load(const float* p) { return _mm256_loadu_ps(p); }
  static Float LoadFirst(const float* p, int n) { return _mm256_maskload_ps(p, First(n)); }
  static void Store(float* p, Float x) { _mm256_storeu_ps(p, x); }
  static void StoreFirst(float* p, int n, Float x) {
    if (n == kLanes) {
      Store(p, x);  // the masked store is microcoded on some CPUs
    } else {
      _mm256_maskstore_ps(p, First(n), x);
    }
  }

  static Float Add(Float a, Float b) { return _mm256_add_ps(a, b); }
  static Float Sub(Float a, Float b) { return _mm256_sub_ps(a, b); }
  static Float Mul(Float a, Float b) { return _mm256_mul_ps(a, b); }
  static Float Div(Float a, Float b) { return _mm256_div_ps(a, b); }
  static Float MulAdd(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
  // b where either is NaN.
  static Float Max(Float a, Float b) { return _mm256_max_ps(a, b); }
  static float Sum(Float x) {
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
  }
  static Float ZeroUnless(Mask m, Float x) { return _mm256_and_ps(_mm256_castsi256_ps(m), x); }

  // e^x for x <= 0; NaN stays NaN.
  static Float Exp(Float x) {
    const Float smallest = Broadcast(kSmallestExponent);
    const Float normal = _mm256_cmp_ps(x, smallest, _CMP_NLT_UQ);
    x = Max(smallest, x);  // keeps -inf out of the reduction, and the exponent of 2^n above 0
    const Float n = _mm256_round_ps(Mul(x, Broadcast(kLog2E)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    Float r = _mm256_fnmadd_ps(n, Broadcast(kLn2High), x);
    r = _mm256_fnmadd_ps(n, Broadcast(kLn2Low), r);
    const Int exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), BroadcastInt(127));
    const Float power = _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
    return _mm256_and_ps(normal, Mul(ExpOfReduced<Avx2>(r), power));
  }

  static Int BroadcastInt(int32_t x) { return _mm256_set1_epi32(x); }
  static Int LoadInt(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static void StoreInt(int32_t* p, Int x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x); }
  static Int SubInt(Int a, Int b) { return _mm256_sub_epi32(a, b); }
  static Int AddInt(Int a, Int b) { return _mm256_add_epi32(a, b); }
  static Int AndInt(Int a, Int b) { return _mm256_and_si256(a, b); }
  static Int OrInt(Int a, Int b) { return _mm256_or_si256(a, b); }
  static Int ShiftLeft(Int x, int bits) { return _mm256_slli_epi32(x, bits); }
  static Int ShiftRight(Int x, int bits) { return _mm256_srli_epi32(x, bits); }
  static Float FromInt(Int x) { return _mm256_cvtepi32_ps(x); }
  static Int ToInt(Float x) { return _mm256_cvtps_epi32(x); }  // to the nearest, ties to even
  static Int Bits(Float x) { return _mm256_castps_si256(x); }
  static Float Abs(Float x) { return _mm256_castsi256_ps(AndInt(Bits(x), BroadcastInt(INT32_MAX))); }
  // The bits of a quiet NaN where x is one, else `otherwise`.
  static Int QuietIfNan(Float x, Int otherwise) {
    return _mm256_blendv_epi8(otherwise, BroadcastInt(0x7fc00000), Bits(_mm256_cmp_ps(x, x, _CMP_UNORD_Q)));
  }
  // The low 16 or 8 bits of each lane, side by side.
  static void StoreLow16(void* p, Int x) {
    const Int pairs = _mm256_packus_epi32(AndInt(x, BroadcastInt(0xffff)), _mm256_setzero_si256());
    _mm_storeu_si128(static_cast<__m128i*>(p), _mm256_castsi256_si128(_mm256_permute4x64_epi64(pairs, 0x08)));
  }
  static void StoreLow8(void* p, Int x) {
    const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(AndInt(x, BroadcastInt(0xff))),
                                           _mm256_extracti128_si256(AndInt(x, BroadcastInt(0xff)), 1));
    _mm_storel_epi64(static_cast<__m128i*>(p), _mm_packus_epi16(words, words));
  }
  // Of four vectors of numbers from 0 to 255.
  static void StoreBytes(uint32_t* p, Int a, Int b, Int c, Int d) {
    // In each half's bytes four of a, of b, of c, of d.
    const Int bytes = _mm256_packus_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    const Int in_order = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), in_order);
  }
  static int32_t Largest(Int x) {
    __m128i largest = _mm_max_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    largest = _mm_max_epi32(largest, _mm_shuffle_epi32(largest, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(largest, _mm_shuffle_epi32(largest, 0xb1)));
  }
  static Int MaxInt(Int a, Int b) { return _mm256_max_epi32(a, b); }
  static Int MinInt(Int a, Int b) { return _mm256_min_epi32(a, b); }
  static Int Decrement(Int x, Mask m) { return _mm256_add_epi32(x, m); }  // a set lane is -1
  static Mask Greater(Int a, Int b) { return _mm256_cmpgt_epi32(a, b); }
  static Mask Equal(Int a, Int b) { return _mm256_cmpeq_epi32(a, b); }
  static Mask TestBits(Int x, int32_t bits) { return FromLaneBits(x, BroadcastInt(bits)); }
  static Mask And(Mask a, Mask b) { return _mm256_and_si256(a, b); }
  static Mask Or(Mask a, Mask b) { return _mm256_or_si256(a, b); }
  static int32_t ToBits(Mask m) { return _mm256_movemask_ps(_mm256_castsi256_ps(m)); }
  static Mask FromBits(int32_t bits) {
    return FromLaneBits(BroadcastInt(bits), _mm256_set_epi32(128, 64, 32, 16, 8, 4, 2, 1));
  }
  // Set where x has the lane's one bit.
  static Mask FromLaneBits(Int x, Int bit) { return Equal(And(x, bit), bit); }

  // Integers in the order of the floats, with -0 equal to 0 and every NaN above all numbers.
  static Int OrderedKey(Float x) {
    const Int bits = _mm256_castps_si256(Add(x, Zero()));  // -0 + 0 = +0
    const Int magnitude_bits_if_negative = _mm256_srli_epi32(_mm256_srai_epi32(bits, 31), 1);
    const Int key = _mm256_xor_si256(bits, magnitude_bits_if_negative);
    const Int nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(key, BroadcastInt(INT32_MAX), nan);
  }

  // Packs the selected lanes of x to out, first + their lane numbers to index; returns how many.
  static int StoreSelected(Mask m, Float x, int32_t first, float* out, int32_t* index) {
    alignas(32) float lanes[kLanes];
    Store(lanes, x);
    int count = 0;
    for (unsigned left = static_cast<unsigned>(ToBits(m)); left != 0; left &= left - 1) {
      const int lane = __builtin_ctz(left);
      out[count] = lanes[lane];
      index[count] = first + lane;
      ++count;
    }
    return count;
  }

  // First within blocks of 4 x 4 (t[4 g + q] then holds, in its 128-bit lane b, column 4 b + q of rows 4 g to 4 g + 3),
  // then the blocks among one another.
  static void Transpose(Float (&t)[kLanes]) {
    for (int g = 0; g < kLanes; g += 4) {
      const __m256d low01 = _mm256_castps_pd(_mm256_unpacklo_ps(t[g], t[g + 1]));
      const __m256d high01 = _mm256_castps_pd(_mm256_unpackhi_ps(t[g], t[g + 1]));
      const __m256d low23 = _mm256_castps_pd(_mm256_unpacklo_ps(t[g + 2], t[g + 3]));
      const __m256d high23 = _mm256_castps_pd(_mm256_unpackhi_ps(t[g + 2], t[g + 3]));
      t[g] = _mm256_castpd_ps(_mm256_unpacklo_pd(low01, low23));
      t[g + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(low01, low23));
      t[g + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(high01, high23));
      t[g + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(high01, high23));
    }
    for (int q = 0; q < 4; ++q) {
      const Float low = _mm256_permute2f128_ps(t[q], t[q + 4], 0x20);
      t[q + 4] = _mm256_permute2f128_ps(t[q], t[q + 4], 0x31);
      t[q] = low;
    }
  }
};

// Products: see vector_product.h.
struct Float32Product {
  using V = Avx2;
  using Sum = __m256;
  using X = __m256;
  using W = __m256;
  static constexpr bool kInteger = false;
  // 6 x 2 sums, 2 vectors of weights and a broadcast take 15 of 16 registers. 12 chains hide a latency of 4 at two
  // multiply-adds a cycle, and 8 loads feed 12 of them.
  static constexpr int kRows = 6;
  static constexpr int Panels(int rows) { return rows == 1 ? 4 : rows == 2 ? 2 : 1; }
  static constexpr int kLinesAhead = 24;
  static Sum Zero() { return _mm256_setzero_ps(); }
  static X Spread(const uint32_t* cell) { return _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(*cell))); }
  static W Load(const uint32_t* cells) { return _mm256_castsi256_ps(LoadCells(cells)); }
  static __m256i LoadCells(const uint32_t* cells) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(cells)); }
  static Sum Step(Sum sum, X x, W w) { return _mm256_fmadd_ps(x, w, sum); }
};

// A bfloat16 is the upper half of a float: a cell is two floats after a shift and a mask.
struct Bfloat16Product {
  struct Pair {
    __m256 low, high;
  };
  using V = Avx2;
  using Sum = __m256;
  using X = Pair;
  using W = Pair;
  static constexpr bool kInteger = false;
  // 8 sums and 6 vectors of operands.
  static constexpr int kRows = 4;
  static constexpr int Panels(int rows) { return rows == 1 ? 4 : rows == 2 ? 2 : 1; }
  static constexpr int kLinesAhead = 0;
  static Pair Unpack(__m256i cells) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(cells, 16)),
            _mm256_castsi256_ps(_mm256_and_si256(cells, _mm256_set1_epi32(static_cast<int>(0xffff0000))))};
  }
  static Sum Zero() { return _mm256_setzero_ps(); }
  static X Spread(const uint32_t* cell) { return Unpack(_mm256_set1_epi32(static_cast<int>(*cell))); }
  static W Load(const uint32_t* cells) { return Unpack(Float32Product::LoadCells(cells)); }
  static Sum Step(Sum sum, X x, W w) { return _mm256_fmadd_ps(x.high, w.high, _mm256_fmadd_ps(x.low, w.low, sum)); }
};

// As int16, of which two products fit an int32: the instruction for bytes would saturate. Even and odd columns apart.
struct Int8Product {
  struct Pair {
    __m256i even, odd;
  };
  using V = Avx2;
  using Sum = __m256i;
  using X = Pair;
  using W = Pair;
  static constexpr bool kInteger = true;
  static constexpr int kRows = 4;  // as above
  static constexpr int Panels(int rows) { return rows == 1 ? 4 : rows == 2 ? 2 : 1; }
  static constexpr int kLinesAhead = 0;
  static Sum Zero() { return _mm256_setzero_si256(); }
  static X Spread(const uint32_t* cell) {
    const __m256i x = _mm256_set1_epi32(static_cast<int>(*cell));
    return {_mm256_and_si256(x, _mm256_set1_epi16(0xff)), _mm256_srli_epi16(x, 8)};
  }
  static W Load(const uint32_t* cells) {
    const __m256i w = Float32Product::LoadCells(cells);
    return {_mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8), _mm256_srai_epi16(w, 8)};
  }
  static Sum Step(Sum sum, X x, W w) {
    return _mm256_add_epi32(_mm256_add_epi32(sum, _mm256_madd_epi16(x.even, w.even)), _mm256_madd_epi16(x.odd, w.odd));
  }
};

}  // namespace

const Kernels kAvx2Kernels = {
    .instruction_set = InstructionSet::kAvx2,
    .name = "avx2",
    .route_dense = RouteDense<Avx2>,
    .route_top_k = RouteTopK<Avx2>,
    .add_experts_top_k = AddExpertsTopK<Avx2>,
    .squared_norm = SquaredNorm<Avx2>,
    .head = Head<Avx2>,
    .silu = Silu<Avx2>,
    .dice = Dice<Avx2>,
    .attend = Attend<Avx2>,
    .add = Add<Avx2>,
    .product = {Product<Float32Product>, Product<Bfloat16Product>, Product<Int8Product>},
    .round_to_bfloat16 = RoundToBfloat16<Avx2>,
    .pair_to_bfloat16 = PairToBfloat16<Avx2>,
    .quantise = Quantise<Avx2>,
};

}  // namespace hilomoe::kernels
