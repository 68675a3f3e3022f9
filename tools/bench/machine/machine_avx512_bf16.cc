// AVX-512-BF16: vdpbf16ps adds two products to each of 16 float32 sums.
#include <immintrin.h>

#include "tools/bench/machine/machine_kernels.h"

namespace hilomoe::bench {
namespace {

constexpr int kChains = 16;  // a latency of 6 at up to two a cycle

double MultiplyAdd(int64_t steps) {
  // 1.0 as bfloat16, twice a lane.
  __m512i ones = _mm512_set1_epi32(0x3f803f80);
  __asm__ volatile("" : "+v"(ones));  // the compiler must not know that it is 1
  __m512bh a;
  __builtin_memcpy(&a, &ones, sizeof(a));
  __m512 sum[kChains];
  for (__m512& s : sum) s = _mm512_setzero_ps();
  for (int64_t i = 0; i < steps; ++i) {
    for (__m512& s : sum) s = _mm512_dpbf16_ps(s, a, a);
  }
  double total = 0;
  for (const __m512& s : sum) {
    float lanes[16];
    _mm512_storeu_ps(lanes, s);
    for (const float lane : lanes) total += static_cast<double>(lane);
  }
  return total;
}

}  // namespace

const MachineKernels kMachineAvx512Bf16 = {"avx512_bf16", "bfloat16", kChains * 32, MultiplyAdd, nullptr};

}  // namespace hilomoe::bench
