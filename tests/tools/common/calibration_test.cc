#include "tools/common/calibration.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace hilomoe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(EqualCountBinsTest, MatchValuesByHand) {
  // Sorted: .1/0 .2/0 | .3/1 .4/0 | .5/1 .8/1.
  const std::vector<float> probability = {0.5F, 0.1F, 0.8F, 0.3F, 0.2F, 0.4F};
  const std::vector<uint8_t> label = {1, 0, 1, 1, 0, 0};
  const std::vector<CalibrationBin> bins = *EqualCountBins(probability, label, 3);
  ASSERT_EQ(bins.size(), 3U);
  const double p[] = {0.15, 0.35, 0.65}, y[] = {0, 0.5, 1};
  for (size_t b = 0; b < 3; ++b) {
    EXPECT_EQ(bins[b].rows, 2);
    EXPECT_NEAR(bins[b].mean_probability, p[b], 1e-7);  // floats of about 1
    EXPECT_DOUBLE_EQ(bins[b].mean_label, y[b]);
  }
  EXPECT_NEAR(CalibrationError(bins), (0.15 + 0.15 + 0.35) / 3, 1e-7);
}

TEST(EqualCountBinsTest, CutNoRunOfEqualProbabilities) {
  // Cutting the run of .5 after its label-0 rows would show two bins of labels 0 and 1 at one probability.
  const std::vector<float> probability = {0.5F, 0.5F, 0.5F, 0.5F, 0.5F, 0.5F, 0.6F, 0.7F, -0.0F, 0.0F};
  const std::vector<uint8_t> label = {0, 1, 0, 1, 0, 1, 1, 1, 0, 1};
  const std::vector<CalibrationBin> bins = *EqualCountBins(probability, label, 5);
  ASSERT_EQ(bins.size(), 3U);
  EXPECT_EQ(bins[0].rows, 2);
  EXPECT_DOUBLE_EQ(bins[0].mean_label, 0.5);
  EXPECT_EQ(bins[1].rows, 6);
  EXPECT_DOUBLE_EQ(bins[1].mean_label, 0.5);
  EXPECT_EQ(bins[2].rows, 2);
  EXPECT_DOUBLE_EQ(bins[2].mean_label, 1);
}

TEST(EqualCountBinsTest, HoldEveryRowOnce) {
  std::mt19937 random(1);
  for (const size_t rows : {0, 1, 2, 19, 20, 21, 1000}) {
    std::vector<float> probability;
    std::vector<uint8_t> label;
    double sum = 0, positives = 0;
    for (size_t i = 0; i < rows; ++i) {
      probability.push_back(static_cast<float>(random() % 100'003) / 100'003.0F);
      label.push_back(random() % 3 == 0 ? 1 : 0);
      sum += probability.back();
      positives += label.back();
    }
    const std::vector<CalibrationBin> bins = *EqualCountBins(probability, label, 20);
    double bin_rows = 0, bin_sum = 0, bin_positives = 0;
    for (const CalibrationBin& bin : bins) {
      EXPECT_GT(bin.rows, 0);
      if (rows == 1000) {
        EXPECT_NEAR(static_cast<double>(bin.rows), 50, 3);  // ties of a few rows at most
      }
      bin_rows += static_cast<double>(bin.rows);
      bin_sum += static_cast<double>(bin.rows) * bin.mean_probability;
      bin_positives += static_cast<double>(bin.rows) * bin.mean_label;
    }
    EXPECT_EQ(bin_rows, static_cast<double>(rows));
    EXPECT_NEAR(bin_sum, sum, 1e-9);
    EXPECT_NEAR(bin_positives, positives, 1e-9);
    EXPECT_EQ(bins.size(), std::min<size_t>(rows, 20));
  }
  EXPECT_EQ(CalibrationError({}), 0);
}

TEST(HistogramTest, CountsEveryRowInItsBin) {
  const std::vector<float> probability = {0, 0.2499F, 0.25F, 0.5F, 0.75F, 1, 1};
  const std::vector<uint8_t> label = {0, 0, 1, 0, 1, 1, 0};
  const ScoreHistogram histogram = *HistogramOfScores(probability, label, 4);
  EXPECT_THAT(histogram.negatives, ElementsAre(2, 0, 1, 1));
  EXPECT_THAT(histogram.positives, ElementsAre(0, 1, 0, 2));
}

TEST(CalibrationTest, RefusesWhatIsNoProbability) {
  const std::vector<uint8_t> label = {0, 1};
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -0.001F, 1.001F}) {
    const std::vector<float> probability = {0.5F, bad};
    EXPECT_THAT(std::string(EqualCountBins(probability, label, 2).status().message()), HasSubstr("row 1"));
    EXPECT_THAT(std::string(HistogramOfScores(probability, label, 2).status().message()), HasSubstr("row 1"));
  }
  EXPECT_FALSE(EqualCountBins(std::vector<float>{0.5F}, label, 2).ok());
  EXPECT_FALSE(HistogramOfScores(std::vector<float>{0.5F}, label, 2).ok());
}

}  // namespace
}  // namespace hilomoe
