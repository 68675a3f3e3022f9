// The baseline of the architecture that the compiler is set to: no fused multiply-add on x86-64.
#include "tools/bench/machine/machine_kernels.h"

namespace hilomoe::bench {
namespace {

using Float4 = float __attribute__((vector_size(16)));

// 12 chains hide a latency of 4 (a multiplication and an addition: 7) at up to two operations a cycle, and fit 16
// registers with both operands.
constexpr int kChains = 12;

double MultiplyAdd(int64_t steps) {
  Float4 a = {1, 1, 1, 1};
  Float4 b = a;
  __asm__ volatile("" : "+m"(a), "+m"(b));  // the compiler must not know that it is 1
  Float4 sum[kChains] = {};
  for (int64_t i = 0; i < steps; ++i) {
    for (Float4& s : sum) s = s * a + b;
  }
  double total = 0;
  for (const Float4& s : sum) {
    for (int lane = 0; lane < 4; ++lane) total += static_cast<double>(s[lane]);
  }
  return total;
}

uint64_t Read(const uint64_t* words, size_t count) {
  uint64_t sum[8] = {};
  for (size_t i = 0; i < count; i += 8) {
    for (int j = 0; j < 8; ++j) sum[j] += words[i + static_cast<size_t>(j)];
  }
  uint64_t total = 0;
  for (const uint64_t s : sum) total += s;
  return total;
}

}  // namespace

const MachineKernels kMachinePortable = {"portable", "float32", kChains * 4, MultiplyAdd, Read};

}  // namespace hilomoe::bench
