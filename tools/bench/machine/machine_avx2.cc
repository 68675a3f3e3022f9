// AVX2 and FMA.
#include <immintrin.h>

#include "tools/bench/machine/machine_kernels.h"

namespace hilomoe::bench {
namespace {

// 12 chains hide a latency of 4 (or 5) at two multiply-adds a cycle, and fit 16 registers with both operands.
constexpr int kChains = 12;

double MultiplyAdd(int64_t steps) {
  __m256 a = _mm256_set1_ps(1);
  __m256 b = a;
  __asm__ volatile("" : "+x"(a), "+x"(b));  // the compiler must not know that it is 1
  __m256 sum[kChains];
  for (__m256& s : sum) s = _mm256_setzero_ps();
  for (int64_t i = 0; i < steps; ++i) {
    for (__m256& s : sum) s = _mm256_fmadd_ps(a, b, s);
  }
  double total = 0;
  for (const __m256& s : sum) {
    float lanes[8];
    _mm256_storeu_ps(lanes, s);
    for (const float lane : lanes) total += static_cast<double>(lane);
  }
  return total;
}

constexpr int kInt8Chains = 8;  // a latency of 1 at up to three a cycle; GCC spills 12

// As int16, which holds what bytes hold: pairs of products, added to int32.
double MultiplyAddInt8(int64_t steps) {
  __m256i ones = _mm256_set1_epi16(1);
  __m256i sum[kInt8Chains];
  for (__m256i& s : sum) s = _mm256_setzero_si256();
  for (int64_t i = 0; i < steps; ++i) {
    for (__m256i& s : sum) {
      __asm__ volatile("" : "+x"(ones));  // the compiler must not know that every product is the same
      s = _mm256_add_epi32(s, _mm256_madd_epi16(ones, ones));
    }
  }
  double total = 0;
  for (const __m256i& s : sum) {
    int32_t lanes[8];
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), s);
    for (const int32_t lane : lanes) total += lane;
  }
  return total;
}

uint64_t Read(const uint64_t* words, size_t count) {
  constexpr size_t kVectors = 8;
  __m256i sum[kVectors];
  for (__m256i& s : sum) s = _mm256_setzero_si256();
  for (size_t i = 0; i < count; i += 4 * kVectors) {
    for (size_t v = 0; v < kVectors; ++v) {
      sum[v] = _mm256_add_epi64(sum[v], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words + i + 4 * v)));
    }
  }
  uint64_t total = 0;
  for (const __m256i& s : sum) {
    uint64_t lanes[4];
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), s);
    for (const uint64_t lane : lanes) total += lane;
  }
  return total;
}

}  // namespace

const MachineKernels kMachineAvx2 = {"avx2", "float32", kChains * 8, MultiplyAdd, Read};
const MachineKernels kMachineAvx2Int8 = {"avx2", "int8", kInt8Chains * 16, MultiplyAddInt8, nullptr};

}  // namespace hilomoe::bench
