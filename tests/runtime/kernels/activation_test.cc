// SiLU, Dice and attention against double loops.
#include <cmath>
#include <limits>
#include <vector>

#include "tests/runtime/kernels/kernel_test.h"

namespace hilomoe::kernels {
namespace {

constexpr double kSigmoidError = 0x1p-21;  // promised in kernels.h
constexpr double kExpError = 0x1p-23;
constexpr double kFlushed = 0x1p-125;  // an exponential below 2^-126 becomes 0

double Sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

class ActivationTest : public KernelTest {};

TEST_P(ActivationTest, SiluMatchesDouble) {
  Random random(1);
  for (const int width : {1, 7, 8, 15, 16, 17, 33, 400}) {
    Matrix y(5, width, 3, kBehind), start(5, width, 3);
    start.Fill([&] { return random.Normal() * std::pow(10.0F, static_cast<float>(random.Below(4)) - 1); });
    for (int r = 0; r < 5; ++r) std::copy_n(start.row(r), width, y.row(r));
    kernels_->silu(5, width, y.data(), y.leading());
    ASSERT_TRUE(y.OnlyShapeWritten());
    for (int r = 0; r < 5; ++r) {
      for (int c = 0; c < width; ++c) {
        const double x = start.at(r, c), expected = x * Sigmoid(x);
        ASSERT_NEAR(y.at(r, c), expected, 2 * kSigmoidError * std::abs(expected) + kFlushed * std::abs(x)) << x;
      }
    }
  }
}

TEST_P(ActivationTest, ExtremesStayInTheirElement) {
  const float infinity = std::numeric_limits<float>::infinity();
  std::vector<float> y = {0, -0.0F, 1e30F, -1e30F, infinity, NAN, 1, -100};
  kernels_->silu(1, static_cast<int>(y.size()), y.data(), 0);
  EXPECT_EQ(y[0], 0);
  EXPECT_EQ(y[1], 0);
  EXPECT_EQ(y[2], 1e30F);
  EXPECT_EQ(y[3], 0);
  EXPECT_EQ(y[4], infinity);
  EXPECT_TRUE(std::isnan(y[5]));
  EXPECT_NEAR(y[6], Sigmoid(1), kSigmoidError);
  EXPECT_NEAR(y[7], 0, 1e-35);
}

// Besides the sigmoid's own error, that of its argument: |z| 3 u, times the slope of at most 1/4.
TEST_P(ActivationTest, DiceMatchesDouble) {
  Random random(2);
  for (const int width : {1, 7, 16, 17, 33, 400}) {
    Matrix y(4, width, 3, kBehind), start(4, width, 3), mean(1, width, 0), scale(1, width, 0), a(1, width, 0);
    start.Fill([&] { return 2 * random.Normal(); });
    mean.Fill([&] { return random.Normal(); });
    scale.Fill([&] { return 0.2F + std::abs(random.Normal()); });
    a.Fill([&] { return random.Normal(); });
    for (int r = 0; r < 4; ++r) std::copy_n(start.row(r), width, y.row(r));
    kernels_->dice(4, width, mean.data(), scale.data(), a.data(), y.data(), y.leading());
    ASSERT_TRUE(y.OnlyShapeWritten());
    for (int r = 0; r < 4; ++r) {
      for (int c = 0; c < width; ++c) {
        const double x = start.at(r, c), z = (x - mean.at(0, c)) * static_cast<double>(scale.at(0, c));
        const double p = Sigmoid(z), alpha = a.at(0, c);
        const double dp = kSigmoidError * p + 0.25 * 3 * kRoundoff * (std::abs(x) + std::abs(mean.at(0, c))) *
                                                  static_cast<double>(scale.at(0, c));
        const double bound =
            std::abs(x) * (dp * (1 + std::abs(alpha)) + 4 * kRoundoff * (p + std::abs(alpha) * (1 - p) + 1));
        ASSERT_NEAR(y.at(r, c), x * (p + alpha * (1 - p)), bound);
      }
    }
  }
}

// Scores: an error of dz in a logit of `width` products makes a relative one of e^(2 dz) - 1; see routing_test.cc.
TEST_P(ActivationTest, AttendMatchesDouble) {
  Random random(3);
  for (const int n : {0, 1, 2, 7, 16, 17, 50, 100}) {
    for (const int width : {1, 8, 15, 16, 33, 64}) {
      SCOPED_TRACE(testing::Message() << n << " positions, width " << width);
      Matrix history(n, width, 5), transposed(width, n, 2), p(1, width, 0);
      Matrix scores(1, n, 0, kBehind), out(1, width, 0, kBehind);
      history.Fill([&] { return random.Normal(); });
      p.Fill([&] { return random.Normal() / std::sqrt(static_cast<float>(width)); });
      for (int j = 0; j < n; ++j) {
        for (int d = 0; d < width; ++d) transposed.at(d, j) = history.at(j, d);
      }
      kernels_->attend(n, width, history.data(), history.leading(), transposed.data(), transposed.leading(), p.data(),
                       scores.data(), out.data());
      ASSERT_TRUE(scores.OnlyShapeWritten());
      ASSERT_TRUE(out.OnlyShapeWritten());
      std::vector<double> z(static_cast<size_t>(n)), s(z.size());
      double dz = 0, largest = -1e30, smallest = 1e30, sum = 0;
      for (int j = 0; j < n; ++j) {
        double magnitude = 0;
        for (int d = 0; d < width; ++d) {
          const double product = static_cast<double>(p.at(0, d)) * history.at(j, d);
          z[j] += product;
          magnitude += std::abs(product);
        }
        dz = std::max(dz, Gamma(width) * magnitude);
        largest = std::max(largest, z[j]);
        smallest = std::min(smallest, z[j]);
      }
      for (int j = 0; j < n; ++j) sum += s[j] = std::exp(z[j] - largest);
      const double exponent = 2 * (dz + kRoundoff * (n > 0 ? largest - smallest : 0));
      const double relative = std::exp(exponent) * (1 + 2 * kExpError) * (1 + Gamma(n + 3)) - 1;
      ASSERT_LT(relative, 1e-4);
      for (int d = 0; d < width; ++d) {
        double expected = 0, magnitude = 0;
        for (int j = 0; j < n; ++j) {
          expected += s[j] / sum * history.at(j, d);
          magnitude += s[j] / sum * std::abs(history.at(j, d));
        }
        ASSERT_NEAR(out.at(0, d), expected, magnitude * (relative + Gamma(n + 1)));
      }
      for (int j = 0; j < n; ++j) ASSERT_NEAR(scores.at(0, j), s[j] / sum, relative * s[j] / sum + kFlushed);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, ActivationTest, testing::ValuesIn(kInstructionSets), InstructionSetName);

}  // namespace
}  // namespace hilomoe::kernels
