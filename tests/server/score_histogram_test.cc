#include "server/score_histogram.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace hilomoe {
namespace {

TEST(ScoreHistogramTest, CountsAsAPlainLoop) {
  std::mt19937 random(1);
  std::uniform_real_distribution<float> exponent(-14, 0);
  ScoreHistogram histogram;
  std::vector<float> all;
  for (const size_t n : {0, 1, 3, 4, 17, 64, 1000}) {
    std::vector<float> scores(n);
    for (float& score : scores) score = std::exp2(exponent(random));
    histogram.Record(scores);
    all.insert(all.end(), scores.begin(), scores.end());
  }
  for (const double bound : ScoreHistogram::kBounds) all.push_back(static_cast<float>(bound));
  histogram.Record(absl::MakeConstSpan(all).last(ScoreHistogram::kBounds.size()));

  double sum = 0;
  for (const float score : all) sum += static_cast<double>(score);
  EXPECT_EQ(histogram.count(), all.size());
  EXPECT_NEAR(histogram.sum(), sum, 1e-9 * sum);
  for (size_t i = 0; i < ScoreHistogram::kBounds.size(); ++i) {
    uint64_t at_most = 0;
    for (const float score : all) at_most += score <= static_cast<float>(ScoreHistogram::kBounds[i]);
    EXPECT_EQ(histogram.at_most(i), at_most);
    EXPECT_GT(at_most, i);
  }
}

TEST(ScoreHistogramTest, WhatIsNoNumberSpoilsNothing) {
  ScoreHistogram histogram;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  histogram.Record(std::vector<float>{nan, -nan, 0, 0.5F, 1, std::numeric_limits<float>::infinity()});
  EXPECT_EQ(histogram.count(), 6);
  EXPECT_EQ(histogram.sum(), 1.5);
  EXPECT_EQ(histogram.at_most(0), 1);
  EXPECT_EQ(histogram.at_most(ScoreHistogram::kBounds.size() - 1), 2);
}

}  // namespace
}  // namespace hilomoe
