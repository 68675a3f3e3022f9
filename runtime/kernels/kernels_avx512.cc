// AVX-512F. Nothing beyond the foundation set is used.
#include <immintrin.h>

#include <cstdint>

#include "runtime/kernels/kernel_tables.h"
#include "runtime/kernels/kernels.h"
#include "runtime/kernels/vector_activation.h"
#include "runtime/kernels/vector_avx512.h"
#include "runtime/kernels/vector_experts.h"
#include "runtime/kernels/vector_product.h"
#include "runtime/kernels/vector_routing.h"

namespace hilomoe::kernels {
namespace {

struct Float32Product : Avx512Tile {
  // The weights of a model in float32 do not fit L2: this hides more of L3's latency than the hardware's prefetching
  // does. Those of fewer bits fit better, and then asking twice costs a tenth.
  static constexpr int kLinesAhead = 24;
  using Sum = __m512;
  using X = __m512;
  using W = __m512;
  static constexpr bool kInteger = false;
  static Sum Zero() { return _mm512_setzero_ps(); }
  static X Spread(const uint32_t* cell) { return _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(*cell))); }
  static W Load(const uint32_t* cells) { return _mm512_load_ps(cells); }
  static Sum Step(Sum sum, X x, W w) { return _mm512_fmadd_ps(x, w, sum); }
};

// A bfloat16 is the upper half of a float: a cell is two floats after a shift and a mask.
struct Bfloat16Product : Avx512Tile {
  struct Pair {
    __m512 low, high;
  };
  using Sum = __m512;
  using X = Pair;
  using W = Pair;
  static constexpr bool kInteger = false;
  // 4 x 2 sums and their operands, twice as many, fit the registers.
  static constexpr int kRows = 4;
  static constexpr int Panels(int rows) { return rows == kRows ? 2 : 4; }
  static Pair Unpack(__m512i cells) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(cells, 16)),
            _mm512_castsi512_ps(_mm512_and_si512(cells, _mm512_set1_epi32(static_cast<int>(0xffff0000))))};
  }
  static Sum Zero() { return _mm512_setzero_ps(); }
  static X Spread(const uint32_t* cell) { return Unpack(_mm512_set1_epi32(static_cast<int>(*cell))); }
  static W Load(const uint32_t* cells) { return Unpack(_mm512_load_si512(cells)); }
  static Sum Step(Sum sum, X x, W w) { return _mm512_fmadd_ps(x.high, w.high, _mm512_fmadd_ps(x.low, w.low, sum)); }
};

}  // namespace

const Kernels kAvx512Kernels = {
    .instruction_set = InstructionSet::kAvx512,
    .name = "avx512",
    .route_dense = RouteDense<Avx512>,
    .route_top_k = RouteTopK<Avx512>,
    .add_experts_top_k = AddExpertsTopK<Avx512>,
    .squared_norm = SquaredNorm<Avx512>,
    .head = Head<Avx512>,
    .silu = Silu<Avx512>,
    .dice = Dice<Avx512>,
    .attend = Attend<Avx512>,
    .add = Add<Avx512>,
    // Multiplying int8 or int16 is not in the foundation set: AVX2's is taken.
    .product = {Product<Float32Product>, Product<Bfloat16Product>, nullptr},
    .round_to_bfloat16 = RoundToBfloat16<Avx512>,
    .pair_to_bfloat16 = PairToBfloat16<Avx512>,
    .quantise = Quantise<Avx512>,
};

}  // namespace hilomoe::kernels
