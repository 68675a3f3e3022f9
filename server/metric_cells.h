// The cells that metrics are counted in: written by one thread each, read by any, without locks.
#ifndef HILOMOE_SERVER_METRIC_CELLS_H_
#define HILOMOE_SERVER_METRIC_CELLS_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"

namespace hilomoe {

// Add on the owning thread only; value on any thread.
template <typename T>
class Cell {
 public:
  void Add(T n = 1) { value_.store(value() + n, std::memory_order_relaxed); }
  T value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<T> value_{0};
};

using Counter = Cell<uint64_t>;

// Upper bounds of buckets, ascending, inclusive; one more bucket holds what is larger. At most kMaxBounds.
using HistogramBounds = absl::Span<const uint64_t>;
inline constexpr size_t kMaxBounds = 32;

// Record on the owning thread only; the readers on any thread. `bounds` outlives the histogram.
class Histogram {
 public:
  explicit Histogram(HistogramBounds bounds) : bounds_(bounds) {}

  void Record(uint64_t value) {
    size_t bucket = 0;
    while (bucket < bounds_.size() && value > bounds_[bucket]) ++bucket;
    counts_[bucket].Add();
    sum_.Add(value);
  }

  HistogramBounds bounds() const { return bounds_; }
  uint64_t count(size_t bucket) const { return counts_[bucket].value(); }
  uint64_t sum() const { return sum_.value(); }

 private:
  HistogramBounds bounds_;
  std::array<Counter, kMaxBounds + 1> counts_;
  Counter sum_;
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_METRIC_CELLS_H_
