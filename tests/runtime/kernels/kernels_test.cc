// Experts, norms, head and addition against double loops.
#include <algorithm>
#include <limits>

#include "tests/runtime/kernels/kernel_test.h"

namespace hilomoe::kernels {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

constexpr int kRows[] = {1, 3, 4, 6, 8, 13, 64};
constexpr int kWidths[] = {1, 7, 8, 9, 15, 16, 17, 31, 33, 64, 400};
constexpr int kExperts[] = {0, 1, 2, 17, 64};

class ExpertsTest : public KernelTest {};

// Operands of one call, and the double loop that it is held against.
struct ExpertsCase {
  ExpertsCase(int rows, int width, int n, int u_rows)
      : rows(rows),
        width(width),
        n(n),
        gated(rows, n, 3),
        u(u_rows, width, 5),
        bias(1, width, 0),
        index(rows, n, 1),
        y(rows, width, 2, kBehind) {}

  template <class F>
  void Fill(F value) {
    gated.Fill(value);
    u.Fill(value);
    bias.Fill(value);
    start.resize(static_cast<size_t>(rows) * width);
    for (float& x : start) x = value();
  }

  void RunTopK(const Kernels& kernels, Activation activation) {
    Reset();
    kernels.add_experts_top_k(rows, width, n, gated.data(), gated.leading(), index.data(), index.leading(), u.data(),
                              u.leading(), bias.data(), activation, y.data(), y.leading());
  }

  // One element is the sum of n products, y and bias in any order: n + 1 additions and at most one rounding of the
  // product touch each term, so its error is at most gamma(n + 2) * (|y| + |bias| + sum |g u|). ReLU never widens it.
  void Check(Activation activation) {
    ASSERT_TRUE(y.OnlyShapeWritten());
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < width; ++c) {
        const double y0 = start[static_cast<size_t>(r) * width + c];
        double sum = y0 + bias.at(0, c);
        double magnitude = std::abs(y0) + std::abs(bias.at(0, c));
        for (int j = 0; j < n; ++j) {
          const double product = static_cast<double>(gated.at(r, j)) * u.at(index.at(r, j), c);
          sum += product;
          magnitude += std::abs(product);
        }
        if (activation == Activation::kRelu) sum = std::max(sum, 0.0);
        ASSERT_NEAR(y.at(r, c), sum, exact ? 0 : Gamma(n + 2) * magnitude) << "row " << r << " column " << c;
      }
    }
  }

  int rows, width, n;
  Matrix gated, u, bias;
  IndexMatrix index;
  Matrix y;
  std::vector<float> start;
  bool exact = false;

 private:
  void Reset() {
    size_t i = 0;
    y.Fill([&] { return start[i++]; });
  }
};

// Odd rows of U, which no row of the batch names, hold NaN.
TEST_P(ExpertsTest, TopKMatchesDoubleLoopAndReadsNamedRowsAlone) {
  Random random(2);
  for (const int rows : kRows) {
    for (const int width : kWidths) {
      for (const int n : kExperts) {
        SCOPED_TRACE(testing::Message() << "rows " << rows << " width " << width << " n " << n);
        ExpertsCase test(rows, width, n, 2 * n + 9);
        test.Fill([&] { return random.Normal(); });
        test.index.Fill([&] { return 2 * random.Below(n + 4); });
        for (int r = 1; r < 2 * n + 9; r += 2) std::fill_n(test.u.row(r), width, kNan);
        for (const Activation activation : {Activation::kIdentity, Activation::kRelu}) {
          test.RunTopK(*kernels_, activation);
          test.Check(activation);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

// Integers below 8 and 64 products: every partial sum is below 2^24, so no order and no fusing may round.
TEST_P(ExpertsTest, IntegersAreExact) {
  Random random(3);
  for (const int width : {17, 400}) {
    ExpertsCase test(13, width, 64, 64);
    test.exact = true;
    test.Fill([&] { return random.Integer(7); });
    test.index.Fill([&] { return random.Below(64); });
    test.RunTopK(*kernels_, Activation::kRelu);
    test.Check(Activation::kRelu);
  }
}

TEST_P(ExpertsTest, ReluKeepsNanAndInfinity) {
  for (const int width : {5, 16, 48, 53}) {
    ExpertsCase test(7, width, 0, 0);
    const float values[] = {kNan, -kNan, kInfinity, -kInfinity, 3.0f, -3.0f, 0.0f};
    int i = 0;
    test.Fill([] { return 0.0f; });
    for (float& x : test.start) x = values[i++ % 7];
    test.RunTopK(*kernels_, Activation::kRelu);
    for (int e = 0; e < 7 * width; ++e) {
      const float x = test.start[e];
      const float y = test.y.at(e / width, e % width);
      ASSERT_TRUE(std::isnan(x) ? std::isnan(y) : y == std::max(x, 0.0f)) << x << " became " << y;
    }
  }
}

// The promise that batches may be split anywhere: each row alone gives the bits that it has in the batch.
TEST_P(ExpertsTest, RowsDoNotDependOnTheirPlaceInTheBatch) {
  constexpr int kBatch = 29;
  Random random(4);
  ExpertsCase batch(kBatch, 403, 64, 64);
  batch.Fill([&] { return random.Normal(); });
  batch.index.Fill([&] { return random.Below(64); });
  batch.RunTopK(*kernels_, Activation::kRelu);
  for (int r = 0; r < kBatch; ++r) {
    std::vector<float> y(batch.start.begin() + 403 * r, batch.start.begin() + 403 * (r + 1));
    kernels_->add_experts_top_k(1, 403, 64, batch.gated.row(r), 0, batch.index.row(r), 0, batch.u.data(),
                                batch.u.leading(), batch.bias.data(), Activation::kRelu, y.data(), 0);
    ASSERT_EQ(std::memcmp(y.data(), batch.y.row(r), 403 * sizeof(float)), 0) << "row " << r;
  }
}

INSTANTIATE_TEST_SUITE_P(All, ExpertsTest, testing::ValuesIn(kInstructionSets), InstructionSetName);

class ReductionTest : public KernelTest {};

// width products summed in any order, and the bias: gamma(width + 1) * (|bias| + sum |x w|).
TEST_P(ReductionTest, MatchDoubleLoops) {
  Random random(5);
  for (const int rows : kRows) {
    for (const int width : {0, 1, 15, 16, 17, 31, 33, 63, 64, 65, 400, 624}) {
      SCOPED_TRACE(testing::Message() << "rows " << rows << " width " << width);
      Matrix x(rows, width, 3), weight(1, width, 0), norm(1, rows, 0, kBehind), logit(1, rows, 0, kBehind);
      x.Fill([&] { return random.Normal(); });
      weight.Fill([&] { return random.Normal(); });
      const float bias = random.Normal();
      kernels_->squared_norm(rows, width, x.data(), x.leading(), norm.data());
      kernels_->head(rows, width, x.data(), x.leading(), weight.data(), bias, logit.data());
      ASSERT_TRUE(norm.OnlyShapeWritten());
      ASSERT_TRUE(logit.OnlyShapeWritten());
      for (int r = 0; r < rows; ++r) {
        double squares = 0, sum = bias, magnitude = std::abs(bias);
        for (int d = 0; d < width; ++d) {
          const double product = static_cast<double>(x.at(r, d)) * weight.at(0, d);
          squares += static_cast<double>(x.at(r, d)) * x.at(r, d);
          sum += product;
          magnitude += std::abs(product);
        }
        ASSERT_NEAR(norm.at(0, r), squares, Gamma(width) * squares);
        ASSERT_NEAR(logit.at(0, r), sum, Gamma(width + 1) * magnitude);
      }
    }
  }
}

TEST_P(ReductionTest, NanReachesItsOwnRowOnly) {
  Matrix x(3, 37, 3), weight(1, 37, 0), logit(1, 3, 0, kBehind);
  x.Fill([] { return 1.0f; });
  weight.Fill([] { return 1.0f; });
  x.at(1, 36) = kNan;
  kernels_->head(3, 37, x.data(), x.leading(), weight.data(), 5.0f, logit.data());
  EXPECT_EQ(logit.at(0, 0), 42.0f);
  EXPECT_TRUE(std::isnan(logit.at(0, 1)));
  EXPECT_EQ(logit.at(0, 2), 42.0f);
}

// One addition rounds one way only.
TEST_P(ReductionTest, AddIsExactlyOneAddition) {
  Random random(6);
  for (const int width : {0, 1, 7, 15, 16, 17, 31, 33, 400}) {
    Matrix x(1, width, 0), out(1, width, 0, kBehind);
    x.Fill([&] { return random.Normal(); });
    out.Fill([&] { return random.Normal(); });
    std::vector<float> expected(width);
    for (int d = 0; d < width; ++d) expected[d] = out.at(0, d) + x.at(0, d);
    kernels_->add(width, x.data(), out.data());
    ASSERT_TRUE(out.OnlyShapeWritten());
    for (int d = 0; d < width; ++d) ASSERT_EQ(out.at(0, d), expected[d]) << "width " << width << " at " << d;
  }
}

INSTANTIATE_TEST_SUITE_P(All, ReductionTest, testing::ValuesIn(kInstructionSets), InstructionSetName);

}  // namespace
}  // namespace hilomoe::kernels
