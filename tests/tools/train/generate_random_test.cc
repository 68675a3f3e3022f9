#include "tools/train/generate_random.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstddef>

namespace hilomoe {
namespace {

// 4 ulp of a normal result, as promised.
TEST(PortableMathTest, IsCloseToTheTruth) {
  PortableRandom random(9);
  for (int i = 0; i < 100'000; ++i) {
    const double x = 1400 * random.Uniform() - 700;
    ASSERT_NEAR(PortableExp(x) / std::exp(x), 1, 4 * 0x1p-52) << x;
    const double y = PortableExp(x);
    ASSERT_NEAR(PortableLog(y), std::log(y), 4 * 0x1p-52 * std::abs(std::log(y))) << y;
  }
  EXPECT_EQ(PortableExp(0), 1);
  EXPECT_EQ(PortableLog(1), 0);
}

// Of n draws the mean of a function with deviation s deviates by s / sqrt(n); 5 of those are allowed. x^2 of a normal x
// has deviation sqrt(2), x^4 has sqrt(96).
TEST(PortableRandomTest, DrawsNormals) {
  PortableRandom random(4);
  const int n = 1'000'000;
  double sum = 0;
  double squares = 0;
  double fourths = 0;
  for (int i = 0; i < n; ++i) {
    const double x = random.Normal();
    sum += x;
    squares += x * x;
    fourths += x * x * x * x;
  }
  EXPECT_NEAR(sum / n, 0, 5 / std::sqrt(n));
  EXPECT_NEAR(squares / n, 1, 5 * std::sqrt(2.0 / n));
  EXPECT_NEAR(fourths / n, 3, 5 * std::sqrt(96.0 / n));
}

TEST(PortableRandomTest, DrawsByWeight) {
  PortableRandom random(5);
  Discrete discrete;
  const std::array<double, 4> weights = {1, 0, 3, 6};
  for (const double weight : weights) discrete.Add(weight);
  std::array<int, 4> counts = {};
  const int n = 100'000;
  for (int i = 0; i < n; ++i) ++counts[discrete.Draw(random)];
  for (size_t i = 0; i < weights.size(); ++i) {
    const double p = weights[i] / 10;
    EXPECT_NEAR(counts[i], n * p, 5 * std::sqrt(n * p * (1 - p))) << i;
  }
}

}  // namespace
}  // namespace hilomoe
