// AVX-512-VNNI: vpdpbusd adds four products of unsigned and signed bytes to each of 16 int32 sums.
#include <immintrin.h>

#include "tools/bench/machine/machine_kernels.h"

namespace hilomoe::bench {
namespace {

constexpr int kChains = 16;  // a latency of 5 at up to two a cycle

// Not by its intrinsic: GCC 12 then copies every sum to another register and back in each step, which takes as much of
// the processor's front end as the products themselves.
__m512i Step(__m512i sum, __m512i x, __m512i w) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w));
  return sum;
}

double MultiplyAdd(int64_t steps) {
  __m512i ones = _mm512_set1_epi32(0x01010101);
  __asm__ volatile("" : "+v"(ones));  // the compiler must not know that it is 1
  __m512i sum[kChains];
  for (__m512i& s : sum) s = _mm512_setzero_si512();
  for (int64_t i = 0; i < steps; ++i) {
    for (__m512i& s : sum) s = Step(s, ones, ones);
  }
  double total = 0;
  for (const __m512i& s : sum) {
    int32_t lanes[16];
    _mm512_storeu_si512(lanes, s);
    for (const int32_t lane : lanes) total += lane;
  }
  return total;
}

}  // namespace

const MachineKernels kMachineAvx512Vnni = {"avx512_vnni", "int8", kChains * 64, MultiplyAdd, nullptr};

}  // namespace hilomoe::bench
