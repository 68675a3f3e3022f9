// Counts durations in buckets whose width is at most 1/128 of the duration: percentiles of any number of values in
// 60 kB, off by less than 0.4 %. The greatest value is exact.
//
//   v < 128          bucket v
//   v in 2^e [1, 2)  128 buckets of 2^(e-7)
//
// Threads: one at a time.
#ifndef HILOMOE_TOOLS_CLIENT_LATENCY_HISTOGRAM_H_
#define HILOMOE_TOOLS_CLIENT_LATENCY_HISTOGRAM_H_

#include <array>
#include <cstddef>
#include <cstdint>

namespace hilomoe {

class LatencyHistogram {
 public:
  void Add(uint64_t ns);

  uint64_t count() const { return count_; }
  uint64_t max_ns() const { return max_ns_; }
  // The least duration that so many of the values do not exceed, 0 < fraction <= 1; 0 of no values.
  double PercentileNs(double fraction) const;

 private:
  static constexpr size_t kBucketsPerOctave = 128;
  static constexpr size_t kOctaves = 64 - 7 + 1;  // the first holds the values below 128

  std::array<uint64_t, kOctaves* kBucketsPerOctave> buckets_ = {};
  uint64_t count_ = 0;
  uint64_t max_ns_ = 0;
};

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_CLIENT_LATENCY_HISTOGRAM_H_
