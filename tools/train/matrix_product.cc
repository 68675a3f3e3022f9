#include "tools/train/matrix_product.h"

#include "Eigen/Core"

namespace hilomoe {

void MatrixProduct(Transpose transpose_a, Transpose transpose_b, size_t m, size_t n, size_t k, double alpha,
                   const double* a, size_t lda, const double* b, size_t ldb, double beta, double* c, size_t ldc) {
  using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using Stride = Eigen::OuterStride<>;
  const auto view = [](const double* data, size_t rows, size_t columns, size_t ld) {
    return Eigen::Map<const Matrix, 0, Stride>(data, static_cast<Eigen::Index>(rows),
                                               static_cast<Eigen::Index>(columns),
                                               Stride(static_cast<Eigen::Index>(ld)));
  };
  Eigen::Map<Matrix, 0, Stride> out(c, static_cast<Eigen::Index>(m), static_cast<Eigen::Index>(n),
                                    Stride(static_cast<Eigen::Index>(ldc)));
  const bool ta = transpose_a == Transpose::kYes, tb = transpose_b == Transpose::kYes;
  const Matrix left = ta ? Matrix(view(a, k, m, lda).transpose()) : Matrix(view(a, m, k, lda));
  const Matrix right = tb ? Matrix(view(b, n, k, ldb).transpose()) : Matrix(view(b, k, n, ldb));
  const Matrix product = alpha * left * right;
  // beta = 0 must not read what stands in C.
  if (beta == 0) {
    out = product;
  } else {
    out = beta * out + product;
  }
}

}  // namespace hilomoe
