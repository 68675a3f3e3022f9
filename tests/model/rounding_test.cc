// Rounded against real float32 arithmetic: the bound holds, and is not so loose that it would hide an error.
#include "model/rounding.h"

#include <cmath>
#include <random>
#include <type_traits>
#include <vector>

#include "gtest/gtest.h"

namespace hilomoe {
namespace {

// One random draw of inputs in [-range, range], given to an expression as either type.
template <typename T>
std::vector<T> Inputs(size_t n, double range, uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::uniform_real_distribution<float> uniform(static_cast<float>(-range), static_cast<float>(range));
  std::vector<T> values;
  for (size_t i = 0; i < n; ++i) values.push_back(T(uniform(engine)));
  return values;
}

template <typename T>
T Sum(const std::vector<T>& x) {
  T sum(0);
  for (const T& e : x) sum += e;
  return sum;
}

template <typename T>
T Dot(const std::vector<T>& x) {
  T sum(0);
  for (size_t i = 0; i + 1 < x.size(); i += 2) sum += x[i] * x[i + 1];
  return sum;
}

template <typename T>
T Norm(const std::vector<T>& x) {
  using std::sqrt;
  T sum(0);
  for (const T& e : x) sum += e * e;
  return sqrt(sum);
}

// The first softmax score of 16 dot products.
template <typename T>
T SoftmaxScore(const std::vector<T>& x) {
  using std::exp;
  const size_t n = x.size() / 16;
  T total(0), first(0);
  for (size_t i = 0; i < 16; ++i) {
    const T e = exp(Dot(std::vector<T>(x.begin() + i * n, x.begin() + (i + 1) * n)));
    if (i == 0) first = e;
    total += e;
  }
  return first / total;
}

template <typename T>
T Cancellation(const std::vector<T>& x) {
  return Sum(x) - (Sum(x) + x[0] * T(0x1p-10F));
}

template <typename T>
T Standardised(const std::vector<T>& x) {
  using std::sqrt;
  const T n(static_cast<float>(x.size()));
  const T mean = Sum(x) / n;
  T variance(0);
  for (const T& e : x) variance += (e - mean) * (e - mean);
  return (x[0] - mean) / sqrt(variance / n + T(1e-5F));
}

template <typename T>
T LogSum(const std::vector<T>& x) {
  using std::exp;
  using std::log;
  T sum(0);
  for (const T& e : x) sum += exp(e);
  return log(sum);
}

// A random straight-line program over the inputs and its own results; steps that would leave [1e-3, 1e3] are left
// out, by the double value, so that both types run the same program.
template <typename T>
T Program(const std::vector<T>& x, const std::vector<Rounded>& reference, uint64_t seed) {
  using std::exp;
  using std::log;
  using std::sqrt;
  std::mt19937_64 engine(seed);
  std::vector<T> values = x;
  std::vector<Rounded> guide = reference;
  for (int step = 0; step < 60; ++step) {
    const size_t a = engine() % values.size(), b = engine() % values.size();
    const auto apply = [&](const auto& v, uint64_t operation) {
      using V = std::decay_t<decltype(v[0])>;
      switch (operation) {
        case 0:
          return V(v[a] + v[b]);
        case 1:
          return V(v[a] - v[b]);
        case 2:
          return V(v[a] * v[b]);
        case 3:
          return V(v[a] / v[b]);
        case 4:
          return V(exp(v[a]));
        case 5:
          return V(log(v[a] * v[a] + V(1.0F)));
        default:
          return V(sqrt(v[a] * v[a] + V(1.0F)));
      }
    };
    const uint64_t operation = engine() % 7;
    const Rounded next = apply(guide, operation);
    if (!(std::fabs(next.value) > 1e-3 && std::fabs(next.value) < 1e3)) continue;
    if (std::sqrt(next.variance) > 1e-3 * std::fabs(next.value)) continue;  // beyond first order
    values.push_back(apply(values, operation));
    guide.push_back(next);
  }
  return values.back();
}

struct Tally {
  double worst = 0;  // error / bound
  void Add(float computed, const Rounded& expected) {
    ASSERT_GT(expected.Bound(), 0);
    const double ratio = std::fabs(static_cast<double>(computed) - expected.value) / expected.Bound();
    ASSERT_LE(ratio, 1) << computed << " is not within " << expected.Bound() << " of " << expected.value;
    worst = std::max(worst, ratio);
  }
};

// 10 standard deviations hold for each of some thousand draws; the worst draw comes to at least 1/100 of them, that is
// to a tenth of a standard deviation.
template <typename Float, typename Tracked>
void Compare(const Float& as_float, const Tracked& tracked, size_t n, double range) {
  Tally tally;
  for (uint64_t seed = 0; seed < 1000; ++seed) {
    ASSERT_NO_FATAL_FAILURE(
        tally.Add(as_float(Inputs<float>(n, range, seed)), tracked(Inputs<Rounded>(n, range, seed))))
        << seed;
  }
  EXPECT_GT(tally.worst, 0.01);
}

TEST(RoundedTest, Sums) {
  for (const size_t n : {2, 10, 1000}) Compare(Sum<float>, Sum<Rounded>, n, 1);
}
TEST(RoundedTest, Dots) {
  for (const size_t n : {2, 64, 2000}) Compare(Dot<float>, Dot<Rounded>, n, 3);
}
TEST(RoundedTest, Norms) {
  for (const size_t n : {2, 64, 1000}) Compare(Norm<float>, Norm<Rounded>, n, 2);
}
TEST(RoundedTest, Softmax) { Compare(SoftmaxScore<float>, SoftmaxScore<Rounded>, 320, 1); }
TEST(RoundedTest, DifferencesOfLikeNumbers) { Compare(Cancellation<float>, Cancellation<Rounded>, 30, 1); }
TEST(RoundedTest, StandardisedNumbers) { Compare(Standardised<float>, Standardised<Rounded>, 40, 5); }
TEST(RoundedTest, LogSumExp) { Compare(LogSum<float>, LogSum<Rounded>, 40, 3); }

TEST(RoundedTest, RandomPrograms) {
  Tally tally;
  for (uint64_t seed = 0; seed < 3000; ++seed) {
    const std::vector<Rounded> inputs = Inputs<Rounded>(8, 2, seed);
    const Rounded expected = Program(inputs, inputs, seed + 10'000);
    if (expected.variance == 0) continue;  // the program ends with an input
    const float computed = Program(Inputs<float>(8, 2, seed), inputs, seed + 10'000);
    ASSERT_NO_FATAL_FAILURE(tally.Add(computed, expected)) << seed;
  }
  EXPECT_GT(tally.worst, 0.01);
}

TEST(RoundedTest, InputsAndConstantsAreExact) {
  EXPECT_EQ(Rounded(0.1).Bound(), 0);
  EXPECT_EQ((-Rounded(0.1)).Bound(), 0);
  // A product of exact numbers is rounded once: variance (2^-24 v)^2 / 3.
  EXPECT_DOUBLE_EQ((Rounded(3) * Rounded(5)).variance, std::pow(15 * 0x1p-24, 2) / 3);
  EXPECT_EQ((Rounded(3) - Rounded(5)).value, -2);
}

}  // namespace
}  // namespace hilomoe
