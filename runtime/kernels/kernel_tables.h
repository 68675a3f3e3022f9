// The tables of the single translation units, for the list in select_kernels.cc alone.
#ifndef HILOMOE_RUNTIME_KERNELS_KERNEL_TABLES_H_
#define HILOMOE_RUNTIME_KERNELS_KERNEL_TABLES_H_

#include "runtime/kernels/kernels.h"

namespace hilomoe::kernels {

extern const Kernels kPortableKernels;
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
// Further products for AVX-512 where the CPU has the instructions.
extern const ProductFunction kAvx512VnniInt8Product;
extern const ProductFunction kAvx512Bf16Bfloat16Product;

}  // namespace hilomoe::kernels

#endif  // HILOMOE_RUNTIME_KERNELS_KERNEL_TABLES_H_
