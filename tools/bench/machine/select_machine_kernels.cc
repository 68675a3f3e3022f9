#include "runtime/kernels/kernels.h"
#include "tools/bench/machine/machine_kernels.h"

namespace hilomoe::bench {
namespace {

struct SupportedTables {
  const MachineKernels* tables[6];
  int count = 0;

  SupportedTables() {
    using kernels::InstructionSet;
    tables[count++] = &kMachinePortable;
#ifdef HILOMOE_BENCH_X86
    const auto add = [this](InstructionSet set, const MachineKernels& machine_kernels) {
      if (kernels::Supported(set)) tables[count++] = &machine_kernels;
    };
    add(InstructionSet::kAvx2, kMachineAvx2);
    add(InstructionSet::kAvx2, kMachineAvx2Int8);
    add(InstructionSet::kAvx512, kMachineAvx512);
    add(InstructionSet::kAvx512Vnni, kMachineAvx512Vnni);
    add(InstructionSet::kAvx512Bf16, kMachineAvx512Bf16);
#endif
  }
};

}  // namespace

const MachineKernels* const* SupportedMachineKernels(int* count) {
  static const SupportedTables supported;
  *count = supported.count;
  return supported.tables;
}

const MachineKernels& FastestReader() {
  int count = 0;
  const MachineKernels* const* all = SupportedMachineKernels(&count);
  const MachineKernels* reader = all[0];
  for (int i = 0; i < count; ++i) {
    if (all[i]->read != nullptr) reader = all[i];
  }
  return *reader;
}

}  // namespace hilomoe::bench
