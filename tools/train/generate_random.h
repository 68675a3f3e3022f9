// Random draws, exp and log that give the same bits on every machine.
//
// std::mt19937_64 is specified to the bit, the standard's distributions and libm's functions are not; here they are
// made of
// + - * / and sqrt alone, which IEEE 754 fixes (the target is compiled with -ffp-contract=off, so that no compiler
// fuses them). PortableExp and PortableLog are within 4 ulp of the true value for normal results.
#ifndef HILOMOE_TOOLS_TRAIN_GENERATE_RANDOM_H_
#define HILOMOE_TOOLS_TRAIN_GENERATE_RANDOM_H_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace hilomoe {

// e^x for |x| < 700.
inline double PortableExp(double x) {
  constexpr double kLog2e = 1.4426950408889634;
  constexpr double kLn2High = 0.693147180369123816490;  // its last bits are zero: k * kLn2High is exact
  constexpr double kLn2Low = 1.90821492927058770002e-10;
  const double k = std::floor(x * kLog2e + 0.5);
  const double r = (x - k * kLn2High) - k * kLn2Low;
  double sum = 1;
  for (int n = 13; n > 0; --n) sum = 1 + sum * r / n;  // |r| < 0.35: r^14 / 14! < 1e-17
  return std::ldexp(sum, static_cast<int>(k));
}

// ln x for a positive normal x.
inline double PortableLog(double x) {
  constexpr double kLn2 = 0.6931471805599453;
  int exponent;
  double mantissa = std::frexp(x, &exponent);
  if (mantissa < 0.70710678118654752) {
    mantissa *= 2;
    --exponent;
  }
  // ln m = 2 artanh t, and t^2 < 0.03: 12 terms leave less than 1e-19.
  const double t = (mantissa - 1) / (mantissa + 1);
  double sum = 0;
  for (int n = 23; n > 0; n -= 2) sum = sum * t * t + 1.0 / n;
  return exponent * kLn2 + 2 * t * sum;
}

class PortableRandom {
 public:
  explicit PortableRandom(uint64_t seed) : engine_(seed) {}

  // In [0, 1), a multiple of 2^-53.
  double Uniform() { return static_cast<double>(engine_() >> 11) * 0x1p-53; }
  // In [0, n), n > 0; the bias is below n / 2^53.
  size_t Below(size_t n) { return static_cast<size_t>(Uniform() * static_cast<double>(n)); }
  bool Chance(double p) { return Uniform() < p; }
  // Standard normal, by Marsaglia's polar method.
  double Normal() {
    while (true) {
      const double a = 2 * Uniform() - 1;
      const double b = 2 * Uniform() - 1;
      const double square = a * a + b * b;
      if (square > 0 && square < 1) return a * std::sqrt(-2 * PortableLog(square) / square);
    }
  }

 private:
  std::mt19937_64 engine_;
};

// Draws index i with probability weight_i / sum of weights.
class Discrete {
 public:
  void Add(double weight) { sums_.push_back((sums_.empty() ? 0 : sums_.back()) + weight); }
  size_t Draw(PortableRandom& random) const {
    const double at = random.Uniform() * sums_.back();
    const auto found = std::upper_bound(sums_.begin(), sums_.end(), at);
    return std::min(static_cast<size_t>(found - sums_.begin()), sums_.size() - 1);
  }

 private:
  std::vector<double> sums_;
};

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_GENERATE_RANDOM_H_
