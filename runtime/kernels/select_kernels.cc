#include <cstdint>

#include "runtime/kernels/kernel_tables.h"
#include "runtime/kernels/kernels.h"

#ifdef HILOMOE_KERNELS_X86
#include <cpuid.h>
#endif

namespace hilomoe::kernels {
namespace {

#ifdef HILOMOE_KERNELS_X86

// The foundation set's, with what a CPU has better instructions for.
Kernels Avx512With(InstructionSet set, const char* name) {
  Kernels kernels = kAvx512Kernels;
  kernels.instruction_set = set;
  kernels.name = name;
  kernels.product[static_cast<int>(Precision::kInt8)] = kAvx2Kernels.product[static_cast<int>(Precision::kInt8)];
  if (set >= InstructionSet::kAvx512Vnni) {
    kernels.product[static_cast<int>(Precision::kInt8)] = kAvx512VnniFunctions.product;
    kernels.quantise = kAvx512VnniFunctions.quantise;
  }
  if (set == InstructionSet::kAvx512Bf16) {
    kernels.product[static_cast<int>(Precision::kBfloat16)] = kAvx512Bf16Functions.product;
    kernels.round_to_bfloat16 = kAvx512Bf16Functions.round;
    kernels.pair_to_bfloat16 = kAvx512Bf16Functions.pair;
  }
  return kernels;
}

#endif

struct Tables {
#ifdef HILOMOE_KERNELS_X86
  const Kernels avx512 = Avx512With(InstructionSet::kAvx512, "avx512");
  const Kernels avx512_vnni = Avx512With(InstructionSet::kAvx512Vnni, "avx512_vnni");
  const Kernels avx512_bf16 = Avx512With(InstructionSet::kAvx512Bf16, "avx512_bf16");
  const Kernels* all[5] = {&kPortableKernels, &kAvx2Kernels, &avx512, &avx512_vnni, &avx512_bf16};
#else
  const Kernels* all[1] = {&kPortableKernels};
#endif
};

constexpr int kCount = sizeof(Tables::all) / sizeof(Kernels*);

const Tables& AllTables() noexcept {
  static const Tables tables;
  return tables;
}

#ifdef HILOMOE_KERNELS_X86

// XCR0: the register files that the operating system saves at a context switch. A CPU that has the instructions is
// no use without them: the upper halves would be lost, or the first instruction trap.
constexpr uint64_t kSseAndYmm = 0x06;
constexpr uint64_t kMasksAndZmm = 0xe0;  // opmask registers, upper halves of ZMM0-15, ZMM16-31

struct Cpu {
  bool avx2 = false;
  bool avx512 = false;
  bool avx512_vnni = false;
  bool avx512_bf16 = false;
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
  // POPCNT and F16C have no flags of their own here, but -mavx2 and -mavx512f let compilers use them.
  constexpr uint32_t kLeaf1 = bit_OSXSAVE | bit_AVX | bit_FMA | bit_POPCNT | bit_F16C;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0 || (ecx & kLeaf1) != kLeaf1) return cpu;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return cpu;
  const uint64_t saved = ReadXcr0();
  cpu.avx2 = (ebx & bit_AVX2) != 0 && (saved & kSseAndYmm) == kSseAndYmm;
  // -mavx512f includes all that -mavx2 allows.
  cpu.avx512 = cpu.avx2 && (ebx & bit_AVX512F) != 0 && (saved & kMasksAndZmm) == kMasksAndZmm;
  // kernels_avx512_vnni.cc is compiled with -mavx512bw, which -mavx512bf16 includes, too.
  cpu.avx512_vnni = cpu.avx512 && (ebx & bit_AVX512BW) != 0 && (ecx & bit_AVX512VNNI) != 0;
  // Zeros when the CPU has no such subleaf.
  if (__get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0) {
    cpu.avx512_bf16 = cpu.avx512_vnni && (eax & bit_AVX512BF16) != 0;
  }
  return cpu;
}

#endif  // HILOMOE_KERNELS_X86

}  // namespace

const Kernels* const* AllKernels(int* count) noexcept {
  *count = kCount;
  return AllTables().all;
}

bool Supported(InstructionSet set) noexcept {
  if (set == InstructionSet::kPortable) return true;
#ifdef HILOMOE_KERNELS_X86
  static const Cpu cpu = DetectCpu();
  if (set == InstructionSet::kAvx2) return cpu.avx2;
  if (set == InstructionSet::kAvx512) return cpu.avx512;
  if (set == InstructionSet::kAvx512Vnni) return cpu.avx512_vnni;
  if (set == InstructionSet::kAvx512Bf16) return cpu.avx512_bf16;
#endif
  return false;
}

const Kernels& SelectKernels(InstructionSet limit) noexcept {
  for (int i = kCount - 1; i > 0; --i) {
    const Kernels& kernels = *AllTables().all[i];
    if (kernels.instruction_set <= limit && Supported(kernels.instruction_set)) return kernels;
  }
  return kPortableKernels;
}

}  // namespace hilomoe::kernels
