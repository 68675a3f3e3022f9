// AVX-512F.
#include <immintrin.h>

#include "tools/bench/machine/machine_kernels.h"

namespace hilomoe::bench {
namespace {

// More than the 8 chains that hide a latency of 4 at two multiply-adds a cycle.
constexpr int kChains = 16;

double MultiplyAdd(int64_t steps) {
  __m512 a = _mm512_set1_ps(1);
  __m512 b = a;
  __asm__ volatile("" : "+v"(a), "+v"(b));  // the compiler must not know that it is 1
  __m512 sum[kChains];
  for (__m512& s : sum) s = _mm512_setzero_ps();
  for (int64_t i = 0; i < steps; ++i) {
    for (__m512& s : sum) s = _mm512_fmadd_ps(a, b, s);
  }
  double total = 0;
  for (const __m512& s : sum) {
    float lanes[16];
    _mm512_storeu_ps(lanes, s);
    for (const float lane : lanes) total += static_cast<double>(lane);
  }
  return total;
}

uint64_t Read(const uint64_t* words, size_t count) {
  constexpr size_t kVectors = 4;  // 8 are slower on Zen 5, from L2 by half
  __m512i sum[kVectors];
  for (__m512i& s : sum) s = _mm512_setzero_si512();
  for (size_t i = 0; i < count; i += 8 * kVectors) {
    for (size_t v = 0; v < kVectors; ++v) {
      sum[v] = _mm512_add_epi64(sum[v], _mm512_loadu_si512(words + i + 8 * v));
    }
  }
  uint64_t total = 0;
  for (const __m512i& s : sum) {
    uint64_t lanes[8];
    _mm512_storeu_si512(lanes, s);
    for (const uint64_t lane : lanes) total += lane;
  }
  return total;
}

}  // namespace

const MachineKernels kMachineAvx512 = {"avx512", "float32", kChains * 16, MultiplyAdd, Read};

}  // namespace hilomoe::bench
