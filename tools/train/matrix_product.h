// C = alpha op(A) op(B) + beta C for the trainer's two scalars: float, which trains, through oneDNN, and double, in
// which the gradients are proven, through Eigen. Conventions as Gemm.
#ifndef HILOMOE_TOOLS_TRAIN_MATRIX_PRODUCT_H_
#define HILOMOE_TOOLS_TRAIN_MATRIX_PRODUCT_H_

#include <cstddef>

#include "tools/train/gemm.h"

namespace hilomoe {

inline void MatrixProduct(Transpose transpose_a, Transpose transpose_b, size_t m, size_t n, size_t k, float alpha,
                          const float* a, size_t lda, const float* b, size_t ldb, float beta, float* c, size_t ldc) {
  Gemm(transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

void MatrixProduct(Transpose transpose_a, Transpose transpose_b, size_t m, size_t n, size_t k, double alpha,
                   const double* a, size_t lda, const double* b, size_t ldb, double beta, double* c, size_t ldc);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_MATRIX_PRODUCT_H_
