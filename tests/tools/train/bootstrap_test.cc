#include "tools/train/bootstrap.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "gtest/gtest.h"
#include "tools/common/metrics.h"
#include "tools/common/statistics.h"
#include "tools/train/random.h"

namespace hilomoe {
namespace {

double Value(const BootstrapValues& values, TestMetric metric, size_t at) {
  return values[static_cast<size_t>(metric)][at];
}

double NormalCdf(double x) { return std::erfc(-x / std::sqrt(2.0)) / 2; }

struct Rows {
  std::vector<std::vector<float>> scores;  // of two runs
  std::vector<uint8_t> labels;
  std::vector<uint64_t> groups;
};

// Probabilities in steps of 1/16, so that there are ties.
Rows CoarseRows(size_t n, size_t groups) {
  Random random(7);
  Rows rows;
  rows.scores.resize(2);
  for (size_t i = 0; i < n; ++i) {
    rows.labels.push_back(random.Uniform() < 0.3 ? 1 : 0);
    if (groups > 0) rows.groups.push_back(random.Below(groups) * 1'000'003);
    for (auto& scores : rows.scores) {
      scores.push_back(static_cast<float>(random.Below(16) + rows.labels.back()) / 16);
    }
  }
  return rows;
}

// The same draws as the header states them, but the drawn rows are written out and measured by ComputeMetrics.
void ExpectEqualToWrittenOutResamples(const Rows& rows, const BootstrapOptions& options) {
  const auto values = Bootstrap(rows.scores, rows.labels, rows.groups, options);
  ASSERT_TRUE(values.ok()) << values.status();
  std::map<uint64_t, std::vector<size_t>> units;  // by key, ascending
  for (size_t i = 0; i < rows.labels.size(); ++i) units[rows.groups.empty() ? i : rows.groups[i]].push_back(i);
  std::vector<std::vector<size_t>> rows_of;
  for (const auto& [key, members] : units) rows_of.push_back(members);
  for (size_t b = 0; b < options.resamples; ++b) {
    Random random(options.seed, 0xB0075, b);
    std::vector<size_t> drawn;
    std::vector<uint64_t> drawn_groups;  // a group drawn twice is two groups
    for (size_t u = 0; u < rows_of.size(); ++u) {
      for (const size_t i : rows_of[random.Below(rows_of.size())]) {
        drawn.push_back(i);
        drawn_groups.push_back(u);
      }
    }
    for (size_t r = 0; r < rows.scores.size(); ++r) {
      std::vector<float> scores;
      std::vector<uint8_t> labels;
      for (const size_t i : drawn) {
        scores.push_back(std::min(rows.scores[r][i], 1.0F));
        labels.push_back(rows.labels[i]);
      }
      const auto metrics = ComputeMetrics(scores, labels, drawn_groups);
      ASSERT_TRUE(metrics.ok()) << metrics.status();
      const size_t at = b * rows.scores.size() + r;
      EXPECT_DOUBLE_EQ(Value(*values, TestMetric::kAuc, at), *metrics->auc);
      EXPECT_NEAR(Value(*values, TestMetric::kLogloss, at), *metrics->logloss, 1e-6);  // float losses
      if (rows.groups.empty()) {
        EXPECT_TRUE(std::isnan(Value(*values, TestMetric::kGauc, at)));
      } else {
        EXPECT_NEAR(Value(*values, TestMetric::kGauc, at), *metrics->grouped.gauc, 1e-12);
      }
    }
  }
}

TEST(BootstrapTest, RowsAreResampledAsIfWrittenOut) {
  ExpectEqualToWrittenOutResamples(CoarseRows(200, 0), {.resamples = 30, .seed = 5});
}

TEST(BootstrapTest, GroupsAreResampledAsIfWrittenOut) {
  ExpectEqualToWrittenOutResamples(CoarseRows(200, 25), {.resamples = 30, .seed = 5});
}

TEST(BootstrapTest, ThreadsDoNotMatterAndSeedsDo) {
  const Rows rows = CoarseRows(300, 0);
  const auto one = Bootstrap(rows.scores, rows.labels, {}, {.resamples = 101, .seed = 1, .threads = 1});
  const auto three = Bootstrap(rows.scores, rows.labels, {}, {.resamples = 101, .seed = 1, .threads = 3});
  const auto other = Bootstrap(rows.scores, rows.labels, {}, {.resamples = 101, .seed = 2, .threads = 1});
  ASSERT_TRUE(one.ok() && three.ok() && other.ok());
  const size_t auc = static_cast<size_t>(TestMetric::kAuc);
  EXPECT_EQ((*one)[auc], (*three)[auc]);
  EXPECT_NE((*one)[auc], (*other)[auc]);
}

// Two models whose scores of clicked rows are shifted by d1 and d2 standard deviations have AUC Phi(d / sqrt 2). The 95
// % interval of their difference must hold the true one in 95 % of 400 independent tests; the count is binomial, so
// that four standard deviations are 4 sqrt(0.95 * 0.05 / 400) = 4.4 %, and the percentile interval itself is off by a
// little.
TEST(BootstrapTest, IntervalsCoverTheTruth) {
  constexpr double kFirst = 1.2, kSecond = 1.0;
  const double truth = NormalCdf(kFirst / std::sqrt(2.0)) - NormalCdf(kSecond / std::sqrt(2.0));
  constexpr int kTests = 400, kRows = 300;
  constexpr uint32_t kResamples = 300;
  int covered = 0, covered_zero = 0;
  for (int t = 0; t < kTests; ++t) {
    Random random(99, static_cast<uint64_t>(t));
    Rows rows;
    rows.scores.resize(2);
    for (int i = 0; i < kRows; ++i) {
      const bool positive = random.Uniform() < 0.4;
      rows.labels.push_back(positive);
      const double shared = random.Normal();  // paired: the models agree on much
      for (const auto& [run, shift] : {std::pair{0, kFirst}, std::pair{1, kSecond}}) {
        const double z = std::sqrt(0.7) * shared + std::sqrt(0.3) * random.Normal() + (positive ? shift : 0);
        rows.scores[static_cast<size_t>(run)].push_back(static_cast<float>(NormalCdf(z)));
      }
    }
    const auto values =
        Bootstrap(rows.scores, rows.labels, {}, {.resamples = kResamples, .seed = static_cast<uint64_t>(t) + 1});
    ASSERT_TRUE(values.ok()) << values.status();
    std::vector<double> differences;
    for (size_t b = 0; b < kResamples; ++b) {
      differences.push_back(Value(*values, TestMetric::kAuc, 2 * b) - Value(*values, TestMetric::kAuc, 2 * b + 1));
    }
    const auto interval = PercentileInterval(differences);
    covered += interval->low <= truth && truth <= interval->high;
    covered_zero += interval->low <= 0 && 0 <= interval->high;
  }
  EXPECT_GT(covered, kTests * 0.90);
  EXPECT_LT(covered, kTests * 0.995);
  EXPECT_LT(covered_zero, kTests * 0.8);  // it is narrow enough to find the difference now and then
}

TEST(BootstrapTest, ResamplesOfOneClassHaveNoAuc) {
  const std::vector<std::vector<float>> scores = {{0.2F, 0.7F}};
  const auto values = Bootstrap(scores, std::vector<uint8_t>{0, 1}, {}, {.resamples = 200, .seed = 3});
  ASSERT_TRUE(values.ok());
  const std::vector<double>& auc = (*values)[static_cast<size_t>(TestMetric::kAuc)];
  const auto undefined = std::count_if(auc.begin(), auc.end(), [](double v) { return std::isnan(v); });
  EXPECT_GT(undefined, 50);  // half of them, on average
  EXPECT_LT(undefined, 150);
}

TEST(BootstrapTest, BadScoresAreRefused) {
  const std::vector<uint8_t> labels = {0, 1};
  EXPECT_FALSE(Bootstrap({{0.5F, std::nanf("")}}, labels, {}, {}).ok());
  EXPECT_FALSE(Bootstrap({{0.5F}}, labels, {}, {}).ok());
  EXPECT_FALSE(Bootstrap({{0.5F, 0.6F}}, labels, std::vector<uint64_t>{1}, {}).ok());
  EXPECT_FALSE(Bootstrap({{}}, {}, {}, {}).ok());
}

}  // namespace
}  // namespace hilomoe
