#include <cstdint>

#include "runtime/kernels/kernel_tables.h"
#include "runtime/kernels/kernels.h"

#ifdef HILOMOE_KERNELS_X86
#include <cpuid.h>
#endif

namespace hilomoe::kernels {
namespace {

constexpr const Kernels* kAll[] = {
    &kPortableKernels,
#ifdef HILOMOE_KERNELS_X86
    &kAvx2Kernels,
    &kAvx512Kernels,
#endif
};
constexpr int kCount = sizeof(kAll) / sizeof(kAll[0]);

#ifdef HILOMOE_KERNELS_X86

// XCR0: the register files that the operating system saves at a context switch. A CPU that has the instructions is
// no use without them: the upper halves would be lost, or the first instruction trap.
constexpr uint64_t kSseAndYmm = 0x06;
constexpr uint64_t kMasksAndZmm = 0xe0;  // opmask registers, upper halves of ZMM0-15, ZMM16-31

struct Cpu {
  bool avx2 = false;
  bool avx512 = false;
};

uint64_t ReadXcr0() {
  uint32_t low = 0;
  uint32_t high = 0;
  // Not _xgetbv: that needs -mxsave, and this file must run everywhere.
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

Cpu DetectCpu() {
  uint32_t eax = 0;
  uint32_t ebx = 0;
  uint32_t ecx = 0;
  uint32_t edx = 0;
  Cpu cpu;
  // POPCNT is not asked for by a flag of its own, but -mavx2 lets the compiler use it.
  constexpr uint32_t kLeaf1 = bit_OSXSAVE | bit_AVX | bit_FMA | bit_POPCNT;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0 || (ecx & kLeaf1) != kLeaf1) return cpu;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return cpu;
  const uint64_t saved = ReadXcr0();
  cpu.avx2 = (ebx & bit_AVX2) != 0 && (saved & kSseAndYmm) == kSseAndYmm;
  // -mavx512f includes all that -mavx2 allows.
  cpu.avx512 = cpu.avx2 && (ebx & bit_AVX512F) != 0 && (saved & kMasksAndZmm) == kMasksAndZmm;
  return cpu;
}

#endif  // HILOMOE_KERNELS_X86

}  // namespace

const Kernels* const* AllKernels(int* count) noexcept {
  *count = kCount;
  return kAll;
}

bool Supported(InstructionSet set) noexcept {
  if (set == InstructionSet::kPortable) return true;
#ifdef HILOMOE_KERNELS_X86
  static const Cpu cpu = DetectCpu();
  if (set == InstructionSet::kAvx2) return cpu.avx2;
  if (set == InstructionSet::kAvx512) return cpu.avx512;
#endif
  return false;
}

const Kernels& SelectKernels(InstructionSet limit) noexcept {
  for (int i = kCount - 1; i > 0; --i) {
    if (kAll[i]->instruction_set <= limit && Supported(kAll[i]->instruction_set)) return *kAll[i];
  }
  return kPortableKernels;
}

}  // namespace hilomoe::kernels
