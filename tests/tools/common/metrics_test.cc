#include "tools/common/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <vector>

namespace hilomoe {
namespace {

using ::testing::HasSubstr;

// The definition: every pair of a clicked and another row.
std::optional<double> AucByPairs(const std::vector<float>& score, const std::vector<uint8_t>& label) {
  double wins = 0;
  double pairs = 0;
  for (size_t i = 0; i < score.size(); ++i) {
    for (size_t j = 0; j < score.size(); ++j) {
      if (label[i] == 0 || label[j] != 0) continue;
      pairs += 1;
      wins += score[i] > score[j] ? 1 : score[i] == score[j] ? 0.5 : 0;
    }
  }
  if (pairs == 0) return std::nullopt;
  return wins / pairs;
}

struct Sample {
  std::vector<float> score;
  std::vector<uint8_t> label;
  std::vector<uint64_t> group;
};

// Scores on a grid of `levels` values between -1 and 1: the coarser, the more ties.
Sample Draw(size_t rows, uint32_t levels, uint64_t groups, std::mt19937* random) {
  Sample sample;
  for (size_t i = 0; i < rows; ++i) {
    const uint32_t level = (*random)() % levels;
    sample.score.push_back(2 * static_cast<float>(level) / static_cast<float>(levels) - 1);
    sample.label.push_back((*random)() % levels < level / 2 + 1 ? 1 : 0);
    sample.group.push_back((*random)() % groups * 0x9e3779b97f4a7c15u);
  }
  return sample;
}

// Both sides divide integers below 2^53: one rounding of the quotient each, and halves are exact.
TEST(AucTest, EqualsTheDefinition) {
  std::mt19937 random(1);
  for (const uint32_t levels : {1u, 2u, 3u, 10u, 1000u, 1u << 20}) {
    for (const size_t rows : {1, 2, 3, 17, 400}) {
      const Sample sample = Draw(rows, levels, 1, &random);
      EXPECT_EQ(*ComputeAuc(sample.score, sample.label), AucByPairs(sample.score, sample.label))
          << levels << " levels, " << rows << " rows";
    }
  }
}

TEST(AucTest, TakesScoresOfAnyRange) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float tiny = std::numeric_limits<float>::denorm_min();
  const std::vector<float> score = {-infinity, -1e30f, -tiny, 0.0f, tiny, 1e30f, infinity};
  EXPECT_EQ(*ComputeAuc(score, std::vector<uint8_t>{0, 0, 0, 0, 1, 1, 1}), 1.0);
  EXPECT_EQ(*ComputeAuc(score, std::vector<uint8_t>{1, 1, 1, 0, 0, 0, 0}), 0.0);
  // The two zeros are equal.
  EXPECT_EQ(*ComputeAuc(std::vector<float>{-0.0f, 0.0f}, std::vector<uint8_t>{0, 1}), 0.5);
}

TEST(AucTest, HasNoValueOfOneClass) {
  EXPECT_EQ(*ComputeAuc({}, {}), std::nullopt);
  EXPECT_EQ(*ComputeAuc(std::vector<float>{1, 2}, std::vector<uint8_t>{1, 1}), std::nullopt);
  EXPECT_EQ(*ComputeAuc(std::vector<float>{1, 2}, std::vector<uint8_t>{0, 0}), std::nullopt);
}

TEST(GroupedAucTest, WeighsByRowsAndLeavesOneClassOut) {
  // Group 7: AUC 1 of 2 rows. Group 9: one of two pairs won, 3 rows. Groups 1 and 2: one class.
  const std::vector<uint64_t> group = {7, 9, 1, 7, 9, 2, 9, 2};
  const std::vector<float> score = {.9f, .5f, .5f, .1f, .8f, .3f, .2f, .4f};
  const std::vector<uint8_t> label = {1, 1, 1, 0, 0, 0, 0, 0};
  const GroupedAuc result = *ComputeGroupedAuc(score, label, group);
  EXPECT_DOUBLE_EQ(*result.gauc, (2 * 1.0 + 3 * 0.5) / 5);
  EXPECT_EQ(result.groups, 4);
  EXPECT_EQ(result.counted_groups, 2);
  EXPECT_EQ(result.counted_rows, 5);
}

TEST(GroupedAucTest, EqualsTheDefinition) {
  std::mt19937 random(2);
  const Sample sample = Draw(2000, 20, 100, &random);
  std::map<uint64_t, Sample> groups;
  for (size_t i = 0; i < sample.score.size(); ++i) {
    Sample& part = groups[sample.group[i]];
    part.score.push_back(sample.score[i]);
    part.label.push_back(sample.label[i]);
  }
  double weighted = 0;
  double rows = 0;
  for (const auto& [key, part] : groups) {
    const std::optional<double> auc = AucByPairs(part.score, part.label);
    if (!auc.has_value()) continue;
    weighted += *auc * static_cast<double>(part.score.size());
    rows += static_cast<double>(part.score.size());
  }
  const GroupedAuc result = *ComputeGroupedAuc(sample.score, sample.label, sample.group);
  // The same 100 summands of at most 2000 in the same order of keys: equal but for the compiler's freedom to fuse.
  EXPECT_NEAR(*result.gauc, weighted / rows, 100 * 0x1p-53);
  EXPECT_EQ(static_cast<double>(result.counted_rows), rows);
}

TEST(GroupedAucTest, HasNoValueWhenNoGroupCounts) {
  const GroupedAuc result =
      *ComputeGroupedAuc(std::vector<float>{1, 2}, std::vector<uint8_t>{0, 1}, std::vector<uint64_t>{1, 2});
  EXPECT_EQ(result.gauc, std::nullopt);
  EXPECT_EQ(result.groups, 2);
}

TEST(MetricsTest, MatchValuesByHand) {
  const std::vector<float> probability = {0.5f, 0.25f, 0.75f, 0.25f};
  const std::vector<uint8_t> label = {1, 0, 1, 1};
  const BinaryMetrics metrics = *ComputeMetrics(probability, label);
  EXPECT_EQ(metrics.rows, 4);
  EXPECT_EQ(metrics.positives, 3);
  EXPECT_DOUBLE_EQ(metrics.mean_probability, 0.4375);
  EXPECT_DOUBLE_EQ(*metrics.auc, 2.5 / 3);
  const double logloss = -(2 * std::log(0.75) + std::log(0.5) + std::log(0.25)) / 4;
  EXPECT_DOUBLE_EQ(*metrics.logloss, logloss);
  EXPECT_DOUBLE_EQ(*metrics.normalised_entropy, logloss / -(0.75 * std::log(0.75) + 0.25 * std::log(0.25)));
  // Three bins: {0.5}: |1 - 0.5|, {0.25, 0.25}: |1 - 0.5|, {0.75}: |1 - 0.75|.
  EXPECT_DOUBLE_EQ(*metrics.ece, (0.5 + 0.5 + 0.25) / 4);
  EXPECT_EQ(metrics.grouped.gauc, std::nullopt);
  EXPECT_EQ(metrics.grouped.groups, 0);
}

TEST(MetricsTest, ClampsSaturatedProbabilities) {
  const std::vector<float> probability = {0, 1, 0, 1};
  EXPECT_NEAR(*ComputeMetrics(probability, std::vector<uint8_t>{0, 1, 0, 1})->logloss, 1e-7, 1e-12);
  EXPECT_NEAR(*ComputeMetrics(probability, std::vector<uint8_t>{1, 0, 1, 0})->logloss, -std::log(1e-7), 1e-6);
  EXPECT_DOUBLE_EQ(*ComputeMetrics(probability, std::vector<uint8_t>{1, 0, 1, 0})->ece, 1);
}

TEST(MetricsTest, LeaveOutWhatHasNoValue) {
  const BinaryMetrics none = *ComputeMetrics({}, {});
  EXPECT_EQ(none.rows, 0);
  EXPECT_EQ(none.auc, std::nullopt);
  EXPECT_EQ(none.logloss, std::nullopt);
  EXPECT_EQ(none.normalised_entropy, std::nullopt);
  EXPECT_EQ(none.ece, std::nullopt);
  const BinaryMetrics one_class =
      *ComputeMetrics(std::vector<float>{0.5f}, std::vector<uint8_t>{1}, std::vector<uint64_t>{1});
  EXPECT_EQ(one_class.auc, std::nullopt);
  EXPECT_EQ(one_class.grouped.gauc, std::nullopt);
  EXPECT_EQ(one_class.normalised_entropy, std::nullopt);
  EXPECT_DOUBLE_EQ(*one_class.logloss, std::log(2.0));
}

TEST(MetricsTest, RefuseWhatIsNoProbability) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<uint8_t> label = {0, 1};
  for (const float bad : {nan, -0.001f, 1.001f, std::numeric_limits<float>::infinity()}) {
    const absl::Status status = ComputeMetrics(std::vector<float>{0.5f, bad}, label).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("row 1"));
  }
  EXPECT_FALSE(ComputeAuc(std::vector<float>{nan, 1}, label).ok());
  EXPECT_FALSE(LogLossFromLogits(std::vector<float>{nan, 1}, label).ok());
  EXPECT_FALSE(ComputeMetrics(std::vector<float>{0.5f}, label).ok());
  EXPECT_FALSE(ComputeMetrics(std::vector<float>{0.5f, 0.5f}, label, std::vector<uint64_t>{1}).ok());
}

TEST(LogLossFromLogitsTest, EqualsTheProbabilitiesLogLoss) {
  std::mt19937 random(5);
  std::vector<float> logit;
  std::vector<float> probability;
  std::vector<uint8_t> label;
  for (int i = 0; i < 1000; ++i) {
    logit.push_back(static_cast<float>(random() % 16000) / 1000 - 8);
    probability.push_back(static_cast<float>(1 / (1 + std::exp(-double{logit.back()}))));
    label.push_back(random() % 2);
  }
  // Rounding p to float moves ln p by at most 2^-24, ln(1 - p) by 2^-25 / (1 - p) <= 2^-25 * (1 + e^8).
  const double bound = 0x1p-25 * (1 + std::exp(8.0));
  EXPECT_NEAR(**LogLossFromLogits(logit, label), *ComputeMetrics(probability, label)->logloss, bound);
}

TEST(LogLossFromLogitsTest, IsStableFarOut) {
  EXPECT_DOUBLE_EQ(**LogLossFromLogits(std::vector<float>{1e30f}, std::vector<uint8_t>{1}), 0);
  EXPECT_DOUBLE_EQ(**LogLossFromLogits(std::vector<float>{-1000}, std::vector<uint8_t>{1}), 1000);
  EXPECT_DOUBLE_EQ(**LogLossFromLogits(std::vector<float>{1000}, std::vector<uint8_t>{0}), 1000);
  EXPECT_EQ(*LogLossFromLogits({}, {}), std::nullopt);
}

}  // namespace
}  // namespace hilomoe
