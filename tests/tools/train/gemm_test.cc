// oneDNN's product against plain loops in double.
//
// Bound: a float32 dot product of k terms, in any order and with or without FMA, has an error of at most
// gamma(k) * sum |x_i w_i|, gamma(k) = k u / (1 - k u), u = 2^-24 (N. J. Higham, Accuracy and Stability, section 3.1).
#include "tools/train/gemm.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace hilomoe {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kSentinel = -12345;

double Gamma(size_t k) {
  const double ku = static_cast<double>(k) * 0x1p-24;
  return ku / (1 - ku);
}

// rows x columns numbers in a matrix of leading dimension ld; `padding` elsewhere.
std::vector<float> Matrix(size_t rows, size_t columns, size_t ld, float padding, uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<float> normal;
  std::vector<float> matrix(rows * ld, padding);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < columns; ++c) matrix[r * ld + c] = normal(engine);
  }
  return matrix;
}

class GemmTest : public testing::Test {
 protected:
  // op(A) [m, k] and op(B) [k, n] with padded leading dimensions; C padded with a sentinel.
  void Check(Transpose ta, Transpose tb, size_t m, size_t n, size_t k, float alpha, float beta) {
    const bool at = ta == Transpose::kYes, bt = tb == Transpose::kYes;
    const size_t lda = (at ? m : k) + 3, ldb = (bt ? k : n) + 2, ldc = n + 4;
    const std::vector<float> a = Matrix(at ? k : m, at ? m : k, lda, kNan, 3);
    const std::vector<float> b = Matrix(bt ? n : k, bt ? k : n, ldb, kNan, 4);
    // With beta = 0 whatever stands in C is not read.
    std::vector<float> c = beta == 0 ? Matrix(m, 0, ldc, kNan, 5) : Matrix(m, n, ldc, kSentinel, 5);
    for (size_t i = 0; i < m; ++i) std::fill(c.begin() + i * ldc + n, c.begin() + (i + 1) * ldc, kSentinel);
    const std::vector<float> before = c;
    Gemm(ta, tb, m, n, k, alpha, a.data(), lda, b.data(), ldb, beta, c.data(), ldc);
    for (size_t i = 0; i < m; ++i) {
      for (size_t j = 0; j < n; ++j) {
        double sum = 0, size = 0;
        for (size_t p = 0; p < k; ++p) {
          const double term =
              static_cast<double>(at ? a[p * lda + i] : a[i * lda + p]) * (bt ? b[j * ldb + p] : b[p * ldb + j]);
          sum += term;
          size += std::fabs(term);
        }
        const double added = beta == 0 ? 0 : static_cast<double>(beta) * before[i * ldc + j];
        // k products and k sums, alpha, beta and their sum: k + 3 roundings at most on any term.
        ASSERT_NEAR(c[i * ldc + j], alpha * sum + added, Gamma(k + 3) * (std::fabs(alpha) * size + std::fabs(added)))
            << at << bt << " " << m << " x " << n << " x " << k << ", " << alpha << ", " << beta;
      }
      for (size_t j = n; j < ldc; ++j) ASSERT_EQ(c[i * ldc + j], kSentinel);
    }
    std::vector<float> again = before;
    Gemm(ta, tb, m, n, k, alpha, a.data(), lda, b.data(), ldb, beta, again.data(), ldc);
    ASSERT_TRUE(c.empty() || std::memcmp(again.data(), c.data(), c.size() * sizeof(float)) == 0);
  }
};

TEST_F(GemmTest, EqualsPlainLoops) {
  for (const Transpose ta : {Transpose::kNo, Transpose::kYes}) {
    for (const Transpose tb : {Transpose::kNo, Transpose::kYes}) {
      for (const size_t m : {0, 1, 3, 17, 65}) {
        for (const size_t n : {0, 1, 2, 33}) {
          for (const size_t k : {0, 1, 5, 100}) {
            ASSERT_NO_FATAL_FAILURE(Check(ta, tb, m, n, k, 1, 0));
            ASSERT_NO_FATAL_FAILURE(Check(ta, tb, m, n, k, 0.5F, 1));
            ASSERT_NO_FATAL_FAILURE(Check(ta, tb, m, n, k, -2, 0.25F));
          }
        }
      }
    }
  }
  Check(Transpose::kNo, Transpose::kYes, 300, 200, 700, 1, 0);
}

}  // namespace
}  // namespace hilomoe
