#include "tools/client/latency_histogram.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace hilomoe {
namespace {

TEST(LatencyHistogramTest, IsEmptyAtFirst) {
  LatencyHistogram histogram;
  EXPECT_EQ(histogram.count(), 0u);
  EXPECT_EQ(histogram.max_ns(), 0u);
  EXPECT_EQ(histogram.PercentileNs(0.5), 0);
}

TEST(LatencyHistogramTest, SmallValuesAreExact) {
  LatencyHistogram histogram;
  for (uint64_t ns = 1; ns <= 100; ++ns) histogram.Add(ns);
  EXPECT_EQ(histogram.PercentileNs(0.5), 50);
  EXPECT_EQ(histogram.PercentileNs(0.99), 99);
  EXPECT_EQ(histogram.PercentileNs(1), 100);
  EXPECT_EQ(histogram.PercentileNs(0.001), 1);
}

// Half a bucket over the least value in it: (2^(e-7) / 2) / 2^e.
constexpr double kBound = 1.0 / 256;

TEST(LatencyHistogramTest, EveryMagnitudeIsWithinTheBound) {
  for (int e = 0; e < 64; ++e) {
    for (const uint64_t offset : {uint64_t{0}, uint64_t{1}, (uint64_t{1} << e) / 3, (uint64_t{1} << e) - 1}) {
      const uint64_t ns = (uint64_t{1} << e) + offset;
      LatencyHistogram histogram;
      histogram.Add(ns);
      histogram.Add(UINT64_MAX);  // so that the greatest value does not help
      const double exact = static_cast<double>(ns);
      EXPECT_NEAR(histogram.PercentileNs(0.5), exact, exact * kBound) << ns;
      EXPECT_EQ(histogram.max_ns(), UINT64_MAX);
    }
  }
}

TEST(LatencyHistogramTest, PercentilesAreThoseOfTheSortedValues) {
  std::mt19937_64 random(1);
  std::lognormal_distribution<double> distribution(13, 2);
  LatencyHistogram histogram;
  std::vector<uint64_t> values(10'007);
  for (uint64_t& value : values) {
    value = static_cast<uint64_t>(distribution(random));
    histogram.Add(value);
  }
  std::sort(values.begin(), values.end());
  for (const double fraction : {0.01, 0.5, 0.9, 0.99, 0.999, 1.0}) {
    const size_t rank = static_cast<size_t>(std::ceil(fraction * static_cast<double>(values.size())));
    const double exact = static_cast<double>(values[rank - 1]);
    EXPECT_NEAR(histogram.PercentileNs(fraction), exact, exact * kBound) << fraction;
  }
}

}  // namespace
}  // namespace hilomoe
