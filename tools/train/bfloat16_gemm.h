// Matrix products whose factors are rounded to bfloat16, for training with half the time per multiply-add.
#ifndef HILOMOE_TOOLS_TRAIN_BFLOAT16_GEMM_H_
#define HILOMOE_TOOLS_TRAIN_BFLOAT16_GEMM_H_

#include <cstddef>

#include "tools/train/gemm.h"

namespace hilomoe {

// C = op(A) op(B), or C += with `add`; A and B are rounded to bfloat16, to the nearest, sums are float32. Conventions
// as Gemm. Fast where the CPU multiplies bfloat16 (AVX-512-BF16); the same numbers but for the order of sums elsewhere.
void Bfloat16Gemm(Transpose transpose_a, Transpose transpose_b, size_t m, size_t n, size_t k, const float* a,
                  size_t lda, const float* b, size_t ldb, bool add, float* c, size_t ldc);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_BFLOAT16_GEMM_H_
