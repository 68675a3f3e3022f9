#include "tools/train/comparison_curves.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "tools/common/statistics.h"

namespace hilomoe {
namespace {

using Bound = CurveGap::Saving::Bound;

// 0.80 at 100, 0.82 at 400, 0.83 at 1600 FLOPs: a hundredth, then half of one, per doubling.
const std::vector<CurveSize> kControl = {{100, {0.80, 0.80}}, {400, {0.82, 0.82}}, {1600, {0.83, 0.83}}};

TEST(CompareCurvesTest, GainAndSavingAreReadOffTheControlsCurve) {
  const auto gap = CompareCurves({{200, {0.82, 0.82}}}, kControl, 200, 1).front();
  ASSERT_TRUE(gap.at_equal_flops.has_value());
  EXPECT_NEAR(gap.at_equal_flops->mean, 0.82 - 0.81, 1e-12);
  EXPECT_NEAR(gap.at_equal_value.value, 1 - 200.0 / 400, 1e-12);
  EXPECT_EQ(gap.at_equal_value.bound, Bound::kExact);
  // Half a hundredth more takes the second piece one doubling further.
  const auto above = CompareCurves({{200, {0.825, 0.825}}}, kControl, 200, 1).front();
  EXPECT_NEAR(above.at_equal_value.value, 1 - 200.0 / 800, 1e-12);
  // A size that is worse needs more FLOPs than the control.
  const auto worse = CompareCurves({{400, {0.81, 0.81}}}, kControl, 200, 1).front();
  EXPECT_NEAR(worse.at_equal_flops->mean, -0.01, 1e-12);
  EXPECT_NEAR(worse.at_equal_value.value, 1 - 400.0 / 200, 1e-12);
}

TEST(CompareCurvesTest, NothingIsExtrapolated) {
  const auto gaps = CompareCurves({{99, {0.79, 0.79}}, {1601, {0.84, 0.84}}, {1600, {0.83, 0.83}}}, kControl, 200, 1);
  EXPECT_FALSE(gaps[0].at_equal_flops.has_value());
  EXPECT_EQ(gaps[0].at_equal_value.bound, Bound::kAtMost);
  EXPECT_NEAR(gaps[0].at_equal_value.value, 1 - 99.0 / 100, 1e-12);
  EXPECT_FALSE(gaps[1].at_equal_flops.has_value());
  EXPECT_EQ(gaps[1].at_equal_value.bound, Bound::kAtLeast);
  EXPECT_NEAR(gaps[1].at_equal_value.value, 1 - 1601.0 / 1600, 1e-12);
  ASSERT_TRUE(gaps[2].at_equal_flops.has_value());
  EXPECT_NEAR(gaps[2].at_equal_flops->mean, 0, 1e-12);
  EXPECT_NEAR(gaps[2].at_equal_value.value, 0, 1e-12);
}

// Larger controls that are no better do not count: the fewest FLOPs that reach the value do.
TEST(CompareCurvesTest, TheFirstCrossingCounts) {
  const std::vector<CurveSize> hump = {{100, {0.80}}, {400, {0.82}}, {1600, {0.81}}, {6400, {0.83}}};
  const auto gap = CompareCurves({{100, {0.815}}}, hump, 200, 1).front();
  EXPECT_NEAR(gap.at_equal_value.value, 1 - 100 / (100 * std::pow(4, 0.75)), 1e-12);
  EXPECT_FALSE(gap.at_equal_value.interval.has_value());  // of one seed
  EXPECT_FALSE(gap.at_equal_flops->interval.has_value());
}

TEST(CompareCurvesTest, IntervalsAreOverSeedsPairedThroughBothCurves) {
  // What seeds move, they move alike in both curves: the gap is the same in each seed, and so in each resample.
  std::vector<CurveSize> control = kControl;
  for (CurveSize& size : control) size.values = {size.values[0] - 0.01, size.values[0], size.values[0] + 0.02};
  const CurveSize alike = {200, {0.82 - 0.01, 0.82, 0.82 + 0.02}};
  const auto paired = CompareCurves({alike}, control, 500, 1).front();
  EXPECT_NEAR(paired.at_equal_flops->interval->low, 0.01, 1e-9);
  EXPECT_NEAR(paired.at_equal_flops->interval->high, 0.01, 1e-9);
  EXPECT_NEAR(paired.at_equal_value.interval->low, 0.5, 1e-9);
  EXPECT_NEAR(paired.at_equal_value.interval->high, 0.5, 1e-9);

  const CurveSize own = {200, {0.812, 0.818, 0.830}};
  const std::vector<CurveSize> still = {
      {100, {0.80, 0.80, 0.80}}, {400, {0.82, 0.82, 0.82}}, {1600, {0.83, 0.83, 0.83}}};
  const auto spread = CompareCurves({own}, still, 500, 1).front();
  const Difference by_hand = PairedDifference(own.values, std::vector<double>(3, 0.81));
  EXPECT_NEAR(spread.at_equal_flops->interval->low, by_hand.interval->low, 1e-9);
  EXPECT_NEAR(spread.at_equal_flops->interval->high, by_hand.interval->high, 1e-9);
  // The worst and best resamples are one seed alone.
  EXPECT_GT(spread.at_equal_value.interval->high, spread.at_equal_value.value);
  EXPECT_LT(spread.at_equal_value.interval->low, spread.at_equal_value.value);
  EXPECT_GE(spread.at_equal_value.interval->low, 1 - 200 / (100 * std::pow(2, 1.2)) - 1e-9);
  EXPECT_LE(spread.at_equal_value.interval->high, 1 - 200.0 / 1600 + 1e-9);
}

}  // namespace
}  // namespace hilomoe
