#include "tools/client/arrival_schedule.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"

namespace hilomoe {
namespace {

TEST(ArrivalScheduleTest, TheSameSeedGivesTheSameTimes) {
  ArrivalSchedule a(1000, 7), b(1000, 7), c(1000, 8);
  int same = 0;
  for (int i = 0; i < 100; ++i) {
    const int64_t at = a.NextNs();
    EXPECT_EQ(at, b.NextNs());
    same += at == c.NextNs();
  }
  EXPECT_LT(same, 5);
}

// Gaps of a Poisson process: mean 1 / rate, deviation 1 / rate, exceeded k / rate times with probability e^-k.
TEST(ArrivalScheduleTest, GapsAreExponential) {
  constexpr int kArrivals = 100'000;
  constexpr double kRate = 400, kMeanNs = 1e9 / kRate;
  ArrivalSchedule schedule(kRate, 1);
  double sum = 0, squares = 0;
  std::vector<int> longer(4);
  int64_t before = 0;
  for (int i = 0; i < kArrivals; ++i) {
    const int64_t at = schedule.NextNs();
    ASSERT_GE(at, before);
    const double gap = static_cast<double>(at - before) / kMeanNs;
    before = at;
    sum += gap;
    squares += gap * gap;
    for (size_t k = 0; k < longer.size(); ++k) longer[k] += gap > static_cast<double>(k + 1);
  }
  // 5 deviations: of the mean 1 / sqrt(n); of the mean square, which is 2, sqrt(20 / n).
  EXPECT_NEAR(sum / kArrivals, 1, 5 / std::sqrt(kArrivals));
  EXPECT_NEAR(squares / kArrivals, 2, 5 * std::sqrt(20.0 / kArrivals));
  for (size_t k = 0; k < longer.size(); ++k) {
    const double p = std::exp(-static_cast<double>(k + 1));
    EXPECT_NEAR(longer[k] / double{kArrivals}, p, 5 * std::sqrt(p / kArrivals));
  }
}

}  // namespace
}  // namespace hilomoe
