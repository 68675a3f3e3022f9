// What kernels are timed with: numbers where serving has its own, on cache lines.
#ifndef HILOMOE_TOOLS_BENCH_RANDOM_NUMBERS_H_
#define HILOMOE_TOOLS_BENCH_RANDOM_NUMBERS_H_

#include <cstddef>
#include <cstdint>
#include <random>

#include "runtime/aligned_vector.h"

namespace hilomoe::bench {

// Of the standard normal distribution.
inline AlignedVector<float> RandomNumbers(size_t n, uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<float> normal;
  AlignedVector<float> numbers(n);
  for (float& x : numbers) x = normal(engine);
  return numbers;
}

}  // namespace hilomoe::bench

#endif  // HILOMOE_TOOLS_BENCH_RANDOM_NUMBERS_H_
