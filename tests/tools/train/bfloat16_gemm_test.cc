// The product against plain loops in double over factors rounded here, bit by bit.
//
// Bound: as gemm_test.cc's, for the products of two bfloat16 are exact in float32.
#include "tools/train/bfloat16_gemm.h"

#include <bit>
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

// The nearest of the two bfloat16 around x, of equally near ones the even.
double Rounded(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const float below = std::bit_cast<float>(bits & 0xffff0000U), above = std::bit_cast<float>((bits | 0xffffU) + 1);
  const double to_below = std::fabs(static_cast<double>(x) - below),
               to_above = std::fabs(above - static_cast<double>(x));
  if (to_below == to_above) return (bits >> 16 & 1) == 0 ? below : above;
  return to_below < to_above ? below : above;
}

std::vector<float> Matrix(size_t rows, size_t columns, size_t ld, float padding, uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<float> normal;
  std::vector<float> matrix(rows * ld, padding);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < columns; ++c) matrix[r * ld + c] = normal(engine);
  }
  return matrix;
}

void Check(Transpose ta, Transpose tb, size_t m, size_t n, size_t k, bool add) {
  const bool at = ta == Transpose::kYes, bt = tb == Transpose::kYes;
  const size_t lda = (at ? m : k) + 3, ldb = (bt ? k : n) + 2, ldc = n + 4;
  const std::vector<float> a = Matrix(at ? k : m, at ? m : k, lda, kNan, 3);
  const std::vector<float> b = Matrix(bt ? n : k, bt ? k : n, ldb, kNan, 4);
  // Without `add` whatever stands in C is not read.
  std::vector<float> c = Matrix(m, add ? n : 0, ldc, add ? kSentinel : kNan, 5);
  for (size_t i = 0; i < m; ++i) std::fill(c.begin() + i * ldc + n, c.begin() + (i + 1) * ldc, kSentinel);
  const std::vector<float> before = c;
  Bfloat16Gemm(ta, tb, m, n, k, a.data(), lda, b.data(), ldb, add, c.data(), ldc);
  std::vector<double> left(m * k), right(n * k);  // op(A) and op(B)^T, rounded
  for (size_t p = 0; p < k; ++p) {
    for (size_t i = 0; i < m; ++i) left[i * k + p] = Rounded(at ? a[p * lda + i] : a[i * lda + p]);
    for (size_t j = 0; j < n; ++j) right[j * k + p] = Rounded(bt ? b[j * ldb + p] : b[p * ldb + j]);
  }
  const double u = static_cast<double>(k + 2) * 0x1p-24, gamma = u / (1 - u);
  for (size_t i = 0; i < m; ++i) {
    for (size_t j = 0; j < n; ++j) {
      double sum = add ? before[i * ldc + j] : 0, size = std::fabs(sum);
      for (size_t p = 0; p < k; ++p) {
        const double term = left[i * k + p] * right[j * k + p];
        sum += term;
        size += std::fabs(term);
      }
      ASSERT_NEAR(c[i * ldc + j], sum, gamma * size) << at << bt << " " << m << " x " << n << " x " << k << " " << add;
    }
    for (size_t j = n; j < ldc; ++j) ASSERT_EQ(c[i * ldc + j], kSentinel);
  }
  std::vector<float> again = before;
  Bfloat16Gemm(ta, tb, m, n, k, a.data(), lda, b.data(), ldb, add, again.data(), ldc);
  ASSERT_TRUE(c.empty() || std::memcmp(again.data(), c.data(), c.size() * sizeof(float)) == 0);
}

TEST(Bfloat16GemmTest, EqualsPlainLoopsOverRoundedFactors) {
  for (const Transpose ta : {Transpose::kNo, Transpose::kYes}) {
    for (const Transpose tb : {Transpose::kNo, Transpose::kYes}) {
      for (const size_t m : {0, 1, 3, 17, 65}) {
        for (const size_t n : {0, 1, 2, 16, 33}) {
          for (const size_t k : {0, 1, 2, 5, 100}) {
            ASSERT_NO_FATAL_FAILURE(Check(ta, tb, m, n, k, false));
            ASSERT_NO_FATAL_FAILURE(Check(ta, tb, m, n, k, true));
          }
        }
      }
      // More than one block in each direction, none of them full.
      ASSERT_NO_FATAL_FAILURE(Check(ta, tb, 66, 1041, 515, false));
      ASSERT_NO_FATAL_FAILURE(Check(ta, tb, 66, 1041, 515, true));
    }
  }
}

// A NaN whose mantissa is all ones would become zero if it were rounded like a number.
TEST(Bfloat16GemmTest, NotANumberStaysOne) {
  for (const bool transposed : {false, true}) {
    const Transpose t = transposed ? Transpose::kYes : Transpose::kNo;
    const float bad = std::bit_cast<float>(0x7fffffffU), one = 1;
    float c = 0;
    Bfloat16Gemm(t, t, 1, 1, 1, &bad, 1, &one, 1, false, &c, 1);
    EXPECT_TRUE(std::isnan(c));
    Bfloat16Gemm(t, t, 1, 1, 1, &one, 1, &bad, 1, false, &c, 1);
    EXPECT_TRUE(std::isnan(c));
  }
}

}  // namespace
}  // namespace hilomoe
