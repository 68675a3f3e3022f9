#include "tools/client/latency_histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace hilomoe {

void LatencyHistogram::Add(uint64_t ns) {
  // Shifted so that 7 bits follow the leading one.
  const int shift = std::max(static_cast<int>(std::bit_width(ns)) - 8, 0);
  const size_t octave = ns < kBucketsPerOctave ? 0 : static_cast<size_t>(shift) + 1;
  ++buckets_[octave * kBucketsPerOctave + ((ns >> shift) & (kBucketsPerOctave - 1))];
  ++count_;
  max_ns_ = std::max(max_ns_, ns);
}

double LatencyHistogram::PercentileNs(double fraction) const {
  if (count_ == 0) return 0;
  const double wanted = std::max(std::ceil(fraction * static_cast<double>(count_)), 1.0);
  uint64_t seen = 0;
  for (size_t i = 0; i < buckets_.size(); ++i) {
    seen += buckets_[i];
    if (static_cast<double>(seen) < wanted) continue;
    const size_t octave = i / kBucketsPerOctave;
    if (octave == 0) return static_cast<double>(i);
    const double width = std::ldexp(1.0, static_cast<int>(octave) - 1);
    const double middle = (static_cast<double>(kBucketsPerOctave + i % kBucketsPerOctave) + 0.5) * width;
    return std::min(middle, static_cast<double>(max_ns_));
  }
  return static_cast<double>(max_ns_);
}

}  // namespace hilomoe
