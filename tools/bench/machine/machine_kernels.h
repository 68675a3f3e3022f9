// Loops that measure what the machine can do: multiply-adds from registers, reads from a level of the memory hierarchy.
//
// One table per instruction set, in its own translation unit with its own compiler flags. As in runtime/kernels, this
// header includes nothing that could be compiled with those flags and then be used by others.
#ifndef HILOMOE_TOOLS_BENCH_MACHINE_MACHINE_KERNELS_H_
#define HILOMOE_TOOLS_BENCH_MACHINE_MACHINE_KERNELS_H_

#include <cstddef>
#include <cstdint>

namespace hilomoe::bench {

struct MachineKernels {
  const char* instruction_set;
  const char* precision;  // of the multiply-adds: "float32", "bfloat16" (float32 sums), "int8" (int32 sums)
  // Multiply-adds of one step of multiply_add, over all of its independent sums.
  int64_t multiply_adds;
  // Adds 1 * 1 `steps` <= 2^20 times to every sum, nothing but registers involved; returns the sum of the sums, which
  // is exactly steps * multiply_adds.
  double (*multiply_add)(int64_t steps);
  // The sum of `count` words modulo 2^64, count a multiple of kReadWords. Null where another table reads as fast.
  uint64_t (*read)(const uint64_t* words, size_t count);
};

inline constexpr size_t kReadWords = 64;

extern const MachineKernels kMachinePortable;
extern const MachineKernels kMachineAvx2;
extern const MachineKernels kMachineAvx2Int8;
extern const MachineKernels kMachineAvx512;
extern const MachineKernels kMachineAvx512Bf16;
extern const MachineKernels kMachineAvx512Vnni;

// The tables that this build has and this machine can run. Portable first, then the wider ones.
const MachineKernels* const* SupportedMachineKernels(int* count);
// Whose `read` is the fastest here.
const MachineKernels& FastestReader();

}  // namespace hilomoe::bench

#endif  // HILOMOE_TOOLS_BENCH_MACHINE_MACHINE_KERNELS_H_
