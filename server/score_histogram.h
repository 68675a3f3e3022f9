// How the scores that a model gives are distributed.
#ifndef HILOMOE_SERVER_SCORE_HISTOGRAM_H_
#define HILOMOE_SERVER_SCORE_HISTOGRAM_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "server/metric_cells.h"

namespace hilomoe {

// Record on the owning thread only, the readers on any thread. Every candidate's score is recorded: 1,000 of them take
// some microseconds, while evaluating them takes milliseconds.
class ScoreHistogram {
 public:
  // Upper bounds, inclusive; click-through rates are small.
  static constexpr std::array<double, 14> kBounds = {0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02,
                                                     0.05,   0.1,    0.2,   0.3,   0.5,   0.7,  0.9};

  // Probabilities. What is no number is counted as above all bounds, and as 0 in the sum.
  void Record(absl::Span<const float> scores);

  uint64_t at_most(size_t bound) const { return at_most_[bound].value(); }  // kBounds[bound]
  uint64_t count() const { return count_.value(); }
  double sum() const { return sum_.value(); }

 private:
  std::array<Counter, kBounds.size()> at_most_;
  Counter count_;
  Cell<double> sum_;
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_SCORE_HISTOGRAM_H_
