#include "tools/common/statistics.h"

#include <cmath>
#include <numbers>
#include <vector>

#include "gtest/gtest.h"

namespace hilomoe {
namespace {

// P(0 <= T <= t) by Simpson's rule on the density, which shares nothing with the incomplete beta function.
double CentralMass(double t, double v) {
  const double scale = std::exp(std::lgamma((v + 1) / 2) - std::lgamma(v / 2)) / std::sqrt(v * std::numbers::pi);
  const auto density = [&](double x) { return scale * std::pow(1 + x * x / v, -(v + 1) / 2); };
  constexpr int kSteps = 20'000;
  const double h = t / kSteps;
  double sum = density(0) + density(t);
  for (int i = 1; i < kSteps; ++i) sum += density(i * h) * (i % 2 == 1 ? 4 : 2);
  return sum * h / 3;
}

TEST(StatisticsTest, SummariesByHand) {
  const Sample sample = Summarise(std::vector<double>{2, 4, 4, 4, 5, 5, 7, 9});
  EXPECT_EQ(sample.n, 8u);
  EXPECT_DOUBLE_EQ(sample.mean, 5);
  EXPECT_DOUBLE_EQ(*sample.deviation, std::sqrt(32.0 / 7));
  EXPECT_FALSE(Summarise(std::vector<double>{3}).deviation.has_value());
  EXPECT_EQ(Summarise({}).n, 0u);
}

TEST(StatisticsTest, TDistributionHasItsClosedForms) {
  for (const double t : {-30.0, -2.0, -0.1, 0.0, 0.5, 3.0, 100.0}) {
    EXPECT_NEAR(StudentTCdf(t, 1), 0.5 + std::atan(t) / std::numbers::pi, 1e-14) << t;
    EXPECT_NEAR(StudentTCdf(t, 2), 0.5 + t / (2 * std::sqrt(2 + t * t)), 1e-14) << t;
  }
}

TEST(StatisticsTest, TDistributionIsTheIntegralOfItsDensity) {
  for (const double v : {3.0, 4.0, 5.7, 9.0, 29.0, 200.0}) {
    for (const double t : {0.3, 1.0, 2.5, 6.0}) {
      EXPECT_NEAR(StudentTCdf(t, v), 0.5 + CentralMass(t, v), 1e-11) << t << " with " << v;
      EXPECT_NEAR(StudentTCdf(-t, v), 0.5 - CentralMass(t, v), 1e-11) << t << " with " << v;
    }
  }
}

TEST(StatisticsTest, QuantilesAreThoseOfThePrintedTables) {
  const struct {
    double v, q975, q95;
  } table[] = {{1, 12.706, 6.314}, {2, 4.303, 2.920},  {3, 3.182, 2.353},  {4, 2.776, 2.132},
               {9, 2.262, 1.833},  {19, 2.093, 1.729}, {30, 2.042, 1.697}, {120, 1.980, 1.658}};
  for (const auto& row : table) {
    EXPECT_NEAR(StudentTQuantile(0.975, row.v), row.q975, 5.1e-4) << row.v;
    EXPECT_NEAR(StudentTQuantile(0.95, row.v), row.q95, 5.1e-4) << row.v;
    EXPECT_NEAR(StudentTQuantile(0.025, row.v), -row.q975, 5.1e-4) << row.v;
  }
  EXPECT_NEAR(StudentTQuantile(0.975, 1e7), 1.959964, 1e-6);  // the normal's
  for (const double p : {0.001, 0.3, 0.5, 0.9, 0.99999}) {
    EXPECT_NEAR(StudentTCdf(StudentTQuantile(p, 6.5), 6.5), p, 1e-12);
  }
}

TEST(StatisticsTest, PairedDifferenceByHand) {
  // Differences 1, 2, 3: mean 2, deviation 1, half 4.302653 / sqrt(3).
  const Difference d = PairedDifference(std::vector<double>{11, 22, 33}, std::vector<double>{10, 20, 30});
  EXPECT_DOUBLE_EQ(d.mean, 2);
  EXPECT_DOUBLE_EQ(d.degrees, 2);
  ASSERT_TRUE(d.interval.has_value());
  EXPECT_NEAR(d.interval->low, 2 - 4.30265273 / std::sqrt(3.0), 1e-7);
  EXPECT_NEAR(d.interval->high, 2 + 4.30265273 / std::sqrt(3.0), 1e-7);
  EXPECT_FALSE(PairedDifference(std::vector<double>{1}, std::vector<double>{2}).interval.has_value());
}

TEST(StatisticsTest, UnpairedDifferenceByHand) {
  // {1, 2, 3}: mean 2, variance 1. {2, 6}: mean 4, variance 8. s^2 = 1/3 + 4 = 13/3;
  // degrees = (13/3)^2 / ((1/3)^2 / 2 + 4^2 / 1) = (169/9) / (1/18 + 16) = 338/289.
  const Difference d = UnpairedDifference(std::vector<double>{1, 2, 3}, std::vector<double>{2, 6});
  EXPECT_DOUBLE_EQ(d.mean, -2);
  EXPECT_NEAR(d.degrees, 338.0 / 289, 1e-12);
  ASSERT_TRUE(d.interval.has_value());
  const double half = (d.interval->high - d.interval->low) / 2;
  EXPECT_NEAR(StudentTCdf(half / std::sqrt(13.0 / 3), 338.0 / 289), 0.975, 1e-12);
  EXPECT_FALSE(UnpairedDifference(std::vector<double>{1, 2}, std::vector<double>{2}).interval.has_value());
}

TEST(StatisticsTest, QuantilesOfValues) {
  EXPECT_DOUBLE_EQ(Quantile({40, 10, 30, 20}, 0.5), 25);
  EXPECT_DOUBLE_EQ(Quantile({40, 10, 30, 20}, 0), 10);
  EXPECT_DOUBLE_EQ(Quantile({40, 10, 30, 20}, 1), 40);
  std::vector<double> values;
  for (int i = 1000; i >= 0; --i) values.push_back(i);
  const auto interval = PercentileInterval(values);
  EXPECT_NEAR(interval->low, 25, 1e-9);
  EXPECT_NEAR(interval->high, 975, 1e-9);
  EXPECT_FALSE(PercentileInterval({}).has_value());
}

}  // namespace
}  // namespace hilomoe
