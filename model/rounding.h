// A number that carries the float32 rounding error of the computation behind it.
//
// Rounded(v, variance): v in double, and the variance of the error that evaluating the same expression in float32
// would have. Every operation adds u^2 v^2 / 3 (a rounding error is taken as uniform in [-u|v|, u|v|], u = 2^-24) to
// what its operands bring along, first order, errors independent (N. J. Higham, T. Mary, "A new approach to
// probabilistic rounding error analysis", 2019). Any summation order, FMA, stacked or folded product has at most
// about as many roundings as the plain one, so that a correct float32 evaluation stays within a few standard
// deviations; kDeviations of them are the bound that golden rows and tests hold it to.
#ifndef HILOMOE_MODEL_ROUNDING_H_
#define HILOMOE_MODEL_ROUNDING_H_

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "model/stored_matrix.h"

namespace hilomoe {

struct Rounded {
  static constexpr double kUnit = 5.9604644775390625e-08;  // 2^-24
  static constexpr double kDeviations = 10;

  double value = 0;
  double variance = 0;

  Rounded() = default;
  Rounded(double v) : value(v) {}  // NOLINT(google-explicit-constructor): constants mix with numbers
  Rounded(double v, double var) : value(v), variance(var) {}

  // The largest error that a correct float32 evaluation may show.
  double Bound() const { return kDeviations * std::sqrt(variance); }
};

// `roundings`: how many unit roundoffs the operation itself may cost.
inline Rounded Round(double value, double variance, double roundings = 1) {
  const double error = roundings * Rounded::kUnit * value;
  return {value, variance + error * error / 3};
}

inline Rounded operator+(Rounded a, Rounded b) { return Round(a.value + b.value, a.variance + b.variance); }
inline Rounded operator-(Rounded a, Rounded b) { return Round(a.value - b.value, a.variance + b.variance); }
inline Rounded operator-(Rounded a) { return {-a.value, a.variance}; }
inline Rounded operator*(Rounded a, Rounded b) {
  return Round(a.value * b.value, b.value * b.value * a.variance + a.value * a.value * b.variance);
}
inline Rounded operator/(Rounded a, Rounded b) {
  const double quotient = a.value / b.value;
  return Round(quotient, (a.variance + quotient * quotient * b.variance) / (b.value * b.value));
}
inline Rounded& operator+=(Rounded& a, Rounded b) { return a = a + b; }
inline Rounded& operator*=(Rounded& a, Rounded b) { return a = a * b; }

// The kernels' exponential is a polynomial; 4 roundings cover it.
inline Rounded exp(Rounded a) {
  const double e = std::exp(a.value);
  return Round(e, e * e * a.variance, 4);
}
inline Rounded log(Rounded a) { return Round(std::log(a.value), a.variance / (a.value * a.value), 4); }
inline Rounded sqrt(Rounded a) {
  const double root = std::sqrt(a.value);
  return Round(root, root > 0 ? a.variance / (4 * a.value) : 0);
}

// Adds the variance of rounding x [n] to `precision`; nothing for scalars that carry none. bfloat16: uniform within
// 2^-8 |x|; int8: of x diag(factor) (null: 1), within half a step of the largest of these / 127.
template <typename T>
void AddRoundingError(Precision, T*, size_t, const double* = nullptr) {}
inline void AddRoundingError(Precision precision, Rounded* x, size_t n, const double* factor = nullptr) {
  const auto of = [factor](size_t i) { return factor == nullptr ? 1 : factor[i]; };
  double largest = 0;
  for (size_t i = 0; i < n; ++i) largest = std::max(largest, std::fabs(x[i].value) * of(i));
  for (size_t i = 0; i < n && precision != Precision::kFloat32; ++i) {
    if (of(i) == 0) continue;  // times zeros
    const double most = precision == Precision::kBfloat16 ? 0x1p-8 * x[i].value : largest / 254 / of(i);
    x[i].variance += most * most / 3;
  }
}

}  // namespace hilomoe

#endif  // HILOMOE_MODEL_ROUNDING_H_
