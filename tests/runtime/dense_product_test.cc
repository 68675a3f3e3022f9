// oneDNN's products against plain loops in double.
//
// Bound: a float32 dot product of k terms, in any order and with or without FMA, has an error of at most
// gamma(k) * sum |x_i w_i|, gamma(k) = k u / (1 - k u), u = 2^-24 (N. J. Higham, Accuracy and Stability, section 3.1).
#include "runtime/dense_product.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <thread>
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

// A product with all its buffers: the weight, X and Y have wider leading dimensions than they need.
struct Product {
  Product(int n_, int k_, int more_w, int more_x, int more_y)
      : n(n_), k(k_), ldw(k_ + more_w), ldx(k_ + more_x), ldy(n_ + more_y) {
    weight = Matrix(n, k, ldw, kNan, 1);
    x = Matrix(kTileRows, k, ldx, kNan, 2);
    y.assign(kTileRows * ldy, kSentinel);
    auto created = DenseProduct::Create(weight.data(), n, k, ldw, ldx, ldy);
    EXPECT_TRUE(created.ok()) << created.status();
    product = *std::move(created);
    scratchpad.resize(product->scratchpad_bytes());
    executor = std::make_unique<DenseProduct::Executor>(*product, x.data(), y.data(), scratchpad.data());
  }
  std::vector<float> Run(int rows) {
    executor->Run(rows);
    return y;
  }
  void ExpectRow(const std::vector<float>& out, int r) const {
    for (int o = 0; o < n; ++o) {
      double sum = 0, size = 0;
      for (int d = 0; d < k; ++d) {
        const double term = static_cast<double>(x[r * ldx + d]) * weight[o * ldw + d];
        sum += term;
        size += std::fabs(term);
      }
      ASSERT_NEAR(out[r * ldy + o], sum, Gamma(k) * size) << "row " << r << ", column " << o;
    }
  }

  int n, k, ldw, ldx, ldy;
  std::vector<float> weight, x, y;
  std::vector<std::byte> scratchpad;
  std::unique_ptr<DenseProduct> product;
  std::unique_ptr<DenseProduct::Executor> executor;
};

TEST(DenseProductTest, EqualsPlainLoops) {
  for (const auto& [n, k] :
       {std::pair(1, 1), std::pair(3, 2), std::pair(16, 16), std::pair(17, 33), std::pair(464, 100)}) {
    for (const int more : {0, 5}) {
      Product product(n, k, more, more, more);
      SCOPED_TRACE(testing::Message() << n << " x " << k << ", padded by " << more);
      for (int rows = 1; rows <= kTileRows; ++rows) {
        const std::vector<float> y = product.Run(rows);
        for (const int r : {0, rows / 2, rows - 1}) ASSERT_NO_FATAL_FAILURE(product.ExpectRow(y, r));
        for (int r = 0; r < kTileRows; ++r) {
          for (int c = n; c < product.ldy; ++c) ASSERT_EQ(y[r * product.ldy + c], kSentinel) << "written beyond a row";
        }
      }
    }
  }
}

// What is computed for `rows` is written to no more rows than the next number with a primitive has.
TEST(DenseProductTest, WritesNoRowsBeyondTheNextPrimitive) {
  for (const auto& [rows, computed] : {std::pair(1, 1), std::pair(2, 8), std::pair(9, 16), std::pair(17, 32)}) {
    Product product(5, 7, 0, 0, 0);
    const std::vector<float> y = product.Run(rows);
    for (int r = computed; r < kTileRows; ++r) EXPECT_EQ(y[r * 5], kSentinel) << r;
  }
}

// The weight is copied, and may be gone or changed afterwards.
TEST(DenseProductTest, CopiesTheWeight) {
  Product product(9, 11, 0, 0, 0);
  const std::vector<float> before = product.Run(20);
  std::vector<float> kept = product.weight;
  std::fill(product.weight.begin(), product.weight.end(), kNan);
  EXPECT_EQ(product.Run(20), before);
}

// A row's bits follow from the row and from the number of rows: not from the other rows, which may hold NaN, and not
// from how often or on which thread it runs.
TEST(DenseProductTest, ARowDependsOnItselfAndTheNumberOfRows) {
  for (const int rows : {1, 7, 8, 13, 33, 64}) {
    Product product(70, 90, 0, 3, 0);
    const std::vector<float> before = product.Run(rows);
    const int r = rows / 2;
    const auto same = [&](const std::vector<float>& y) {
      return std::memcmp(&y[r * 70], &before[r * 70], 70 * sizeof(float)) == 0;
    };
    EXPECT_TRUE(same(product.Run(rows)));
    for (int other = 0; other < kTileRows; ++other) {
      if (other != r) std::fill_n(&product.x[other * product.ldx], 90, other % 2 == 0 ? kNan : 7.0F);
    }
    EXPECT_TRUE(same(product.Run(rows))) << rows;
    std::vector<float> y(kTileRows * 70);
    std::thread thread([&] {
      std::vector<std::byte> scratchpad(product.product->scratchpad_bytes());
      DenseProduct::Executor(*product.product, product.x.data(), y.data(), scratchpad.data()).Run(rows);
    });
    thread.join();
    EXPECT_TRUE(same(y)) << rows;
  }
}

// Integers add up exactly in float32: no position, order or kernel may change a bit.
TEST(DenseProductTest, IntegersAreExact) {
  Product product(33, 50, 0, 0, 0);
  for (float& x : product.x) x = std::round(x * 8);
  std::vector<float> weight = product.weight;
  for (float& w : weight) w = std::round(w * 8);
  auto created = DenseProduct::Create(weight.data(), 33, 50, 50, 50, 33);
  ASSERT_TRUE(created.ok());
  std::vector<std::byte> scratchpad((*created)->scratchpad_bytes());
  const DenseProduct::Executor executor(**created, product.x.data(), product.y.data(), scratchpad.data());
  for (const int rows : {1, 5, 64}) {
    executor.Run(rows);
    for (int r = 0; r < rows; ++r) {
      for (int o = 0; o < 33; ++o) {
        float sum = 0;
        for (int d = 0; d < 50; ++d) sum += product.x[r * 50 + d] * weight[o * 50 + d];
        ASSERT_EQ(product.y[r * 33 + o], sum);
      }
    }
  }
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
