#include "tools/common/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace hilomoe {
namespace {

// The continued fraction of the incomplete beta function (DLMF 8.17.22), by Lentz's method; for x < (a+1)/(a+b+2),
// where it converges in O(sqrt(max(a, b))) terms.
double BetaFraction(double a, double b, double x) {
  constexpr double kTiny = std::numeric_limits<double>::min() / std::numeric_limits<double>::epsilon();
  constexpr int kMostTerms = 100'000;
  const auto away_from_zero = [](double value) { return std::abs(value) < kTiny ? kTiny : value; };
  double c = 1, d = 1 / away_from_zero(1 - (a + b) * x / (a + 1)), fraction = d;
  for (int m = 1; m < kMostTerms; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / away_from_zero(1 + even * d);
    c = away_from_zero(1 + even / c);
    fraction *= d * c;
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / away_from_zero(1 + odd * d);
    c = away_from_zero(1 + odd / c);
    fraction *= d * c;
    if (std::abs(d * c - 1) < 1e-15) break;
  }
  return fraction;
}

// I_x(a, b); y = 1 - x is given too, because the subtraction would lose a small one.
double RegularisedBeta(double a, double b, double x, double y) {
  if (x <= 0) return 0;
  if (y <= 0) return 1;
  const double front =
      std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) + a * std::log(x) + b * std::log(y));
  if (x < (a + 1) / (a + b + 2)) return front * BetaFraction(a, b, x) / a;
  return 1 - front * BetaFraction(b, a, y) / b;
}

std::optional<Interval> Around(double mean, double standard_error, double degrees, double confidence) {
  const double half = StudentTQuantile((1 + confidence) / 2, degrees) * standard_error;
  return Interval{mean - half, mean + half};
}

}  // namespace

Sample Summarise(std::span<const double> values) {
  Sample sample{.n = values.size(), .mean = 0, .deviation = {}};
  if (values.empty()) return sample;
  const double n = static_cast<double>(values.size());
  sample.mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  if (values.size() < 2) return sample;
  double squares = 0;
  for (const double value : values) squares += (value - sample.mean) * (value - sample.mean);
  sample.deviation = std::sqrt(squares / (n - 1));
  return sample;
}

double StudentTCdf(double t, double v) {
  const double square = t * t;
  const double tail = RegularisedBeta(v / 2, 0.5, v / (v + square), square / (v + square)) / 2;
  return t < 0 ? tail : 1 - tail;
}

double StudentTQuantile(double p, double v) {
  if (p == 0.5) return 0;
  if (p < 0.5) return -StudentTQuantile(1 - p, v);
  double low = 0, high = 1;
  while (StudentTCdf(high, v) < p && high < 1e300) high *= 2;
  while (high - low > 1e-13 * high) {
    const double middle = low + (high - low) / 2;
    (StudentTCdf(middle, v) < p ? low : high) = middle;
    if (middle == low && middle == high) break;
  }
  return low + (high - low) / 2;
}

Difference PairedDifference(std::span<const double> a, std::span<const double> b, double confidence) {
  std::vector<double> differences(a.size());
  for (size_t i = 0; i < a.size(); ++i) differences[i] = a[i] - b[i];
  const Sample sample = Summarise(differences);
  const double n = static_cast<double>(sample.n);
  Difference out{.mean = sample.mean, .interval = {}, .degrees = n - 1};
  if (sample.deviation.has_value()) {
    out.interval = Around(sample.mean, *sample.deviation / std::sqrt(n), n - 1, confidence);
  }
  return out;
}

Difference UnpairedDifference(std::span<const double> a, std::span<const double> b, double confidence) {
  const Sample x = Summarise(a), y = Summarise(b);
  Difference out{.mean = x.mean - y.mean, .interval = {}, .degrees = 0};
  if (!x.deviation.has_value() || !y.deviation.has_value()) return out;
  const double na = static_cast<double>(x.n), nb = static_cast<double>(y.n);
  const double va = *x.deviation * *x.deviation / na, vb = *y.deviation * *y.deviation / nb;
  if (!(va + vb > 0)) return out;
  out.degrees = (va + vb) * (va + vb) / (va * va / (na - 1) + vb * vb / (nb - 1));
  out.interval = Around(out.mean, std::sqrt(va + vb), out.degrees, confidence);
  return out;
}

double Quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  const double at = q * static_cast<double>(values.size() - 1);
  const size_t below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (at - static_cast<double>(below)) * (values[above] - values[below]);
}

std::optional<Interval> PercentileInterval(const std::vector<double>& values, double confidence) {
  if (values.empty()) return std::nullopt;
  const double tail = (1 - confidence) / 2;
  return Interval{Quantile(values, tail), Quantile(values, 1 - tail)};
}

}  // namespace hilomoe
