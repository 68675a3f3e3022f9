#include "runtime/kernels/kernels.h"
#include "tools/bench/machine/machine_kernels.h"

#ifdef HILOMOE_BENCH_X86
#include <cpuid.h>
#endif

namespace hilomoe::bench {
namespace {

#ifdef HILOMOE_BENCH_X86

bool HasLeaf7Bits(unsigned subleaf, unsigned wanted_eax, unsigned wanted_ebx, unsigned wanted_ecx) {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid_count(7, subleaf, &eax, &ebx, &ecx, &edx) == 0) return false;
  return (eax & wanted_eax) == wanted_eax && (ebx & wanted_ebx) == wanted_ebx && (ecx & wanted_ecx) == wanted_ecx;
}

// Their state is AVX-512F's: kernels::Supported asks the operating system for it.
bool SupportsVnni() {
  return kernels::Supported(kernels::InstructionSet::kAvx512) && HasLeaf7Bits(0, 0, 0, bit_AVX512VNNI);
}
// -mavx512bf16 lets the compiler use AVX-512BW, too.
bool SupportsBf16() {
  return kernels::Supported(kernels::InstructionSet::kAvx512) && HasLeaf7Bits(0, 0, bit_AVX512BW, 0) &&
         HasLeaf7Bits(1, bit_AVX512BF16, 0, 0);
}

#endif  // HILOMOE_BENCH_X86

struct Supported {
  const MachineKernels* tables[5];
  int count = 0;

  Supported() {
    tables[count++] = &kMachinePortable;
#ifdef HILOMOE_BENCH_X86
    if (kernels::Supported(kernels::InstructionSet::kAvx2)) tables[count++] = &kMachineAvx2;
    if (kernels::Supported(kernels::InstructionSet::kAvx512)) tables[count++] = &kMachineAvx512;
    if (SupportsBf16()) tables[count++] = &kMachineAvx512Bf16;
    if (SupportsVnni()) tables[count++] = &kMachineAvx512Vnni;
#endif
  }
};

}  // namespace

const MachineKernels* const* SupportedMachineKernels(int* count) {
  static const Supported supported;
  *count = supported.count;
  return supported.tables;
}

}  // namespace hilomoe::bench
