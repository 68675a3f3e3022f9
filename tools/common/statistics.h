// Means of a few repeated measurements and how far they can be trusted.
//
// Threads: pure functions. What has no value (a deviation of one number) is nullopt, never NaN.
#ifndef HILOMOE_TOOLS_COMMON_STATISTICS_H_
#define HILOMOE_TOOLS_COMMON_STATISTICS_H_

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

namespace hilomoe {

struct Sample {
  size_t n = 0;
  double mean = 0;                  // 0 of nothing
  std::optional<double> deviation;  // sample standard deviation, divisor n - 1; needs n >= 2
};
Sample Summarise(std::span<const double> values);

struct Interval {
  double low = 0, high = 0;
};

// P(T <= t) of Student's distribution with v > 0 degrees of freedom, which need not be whole:
//   1 - I_x(v / 2, 1 / 2) / 2 for t >= 0, x = v / (v + t^2), I the regularised incomplete beta function.
double StudentTCdf(double t, double v);
// Its inverse, 0 < p < 1; to about 1e-10 relative.
double StudentTQuantile(double p, double v);

struct Difference {
  double mean = 0;                   // mean(a) - mean(b)
  std::optional<Interval> interval;  // of the given confidence
  double degrees = 0;                // of freedom
};

// Of pairs (a_i, b_i): the interval is mean +- t s / sqrt(n), s the deviation of a_i - b_i, n - 1 degrees of freedom.
// The spans have equal lengths, at least 1; no interval of one pair.
Difference PairedDifference(std::span<const double> a, std::span<const double> b, double confidence = 0.95);

// Of two independent samples with deviations of their own (Welch, 1947): s^2 = s_a^2 / n_a + s_b^2 / n_b, degrees by
// Welch and Satterthwaite. No interval when one sample has fewer than two values, or neither has any spread.
Difference UnpairedDifference(std::span<const double> a, std::span<const double> b, double confidence = 0.95);

// The q-quantile of values in any order, 0 <= q <= 1, linear between order statistics (at (n - 1) q); not of nothing.
double Quantile(std::vector<double> values, double q);

// The middle `confidence` of the values; nullopt of nothing.
std::optional<Interval> PercentileInterval(const std::vector<double>& values, double confidence = 0.95);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_COMMON_STATISTICS_H_
