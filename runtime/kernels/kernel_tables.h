// The tables of the single translation units, for the list in select_kernels.cc alone.
#ifndef HILOMOE_RUNTIME_KERNELS_KERNEL_TABLES_H_
#define HILOMOE_RUNTIME_KERNELS_KERNEL_TABLES_H_

#include "runtime/kernels/kernels.h"

namespace hilomoe::kernels {

extern const Kernels kPortableKernels;
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
// Further functions for AVX-512 where the CPU has the instructions.
struct Int8Functions {
  ProductFunction product;
  decltype(Kernels::quantise) quantise;
};
extern const Int8Functions kAvx512VnniFunctions;
struct Bfloat16Functions {
  ProductFunction product;
  decltype(Kernels::round_to_bfloat16) round;
  decltype(Kernels::pair_to_bfloat16) pair;
};
extern const Bfloat16Functions kAvx512Bf16Functions;

}  // namespace hilomoe::kernels

#endif  // HILOMOE_RUNTIME_KERNELS_KERNEL_TABLES_H_
