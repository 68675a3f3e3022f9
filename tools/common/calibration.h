// How predicted probabilities are distributed, and what happened where they lie: the curves behind the numbers of
// metrics.h.
//
// Threads: pure functions. Errors: INVALID_ARGUMENT for spans of different lengths and for a probability outside
// [0, 1] (or NaN), naming the row.
#ifndef HILOMOE_TOOLS_COMMON_CALIBRATION_H_
#define HILOMOE_TOOLS_COMMON_CALIBRATION_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

namespace hilomoe {

struct CalibrationBin {
  int64_t rows = 0;
  double mean_probability = 0;
  double mean_label = 0;
};

// The rows in the order of their probability, cut into at most `bins` bins of n / bins rows each. A bin goes on until
// its last probability ends, for rows of one probability have no order: so bins may be larger, and fewer. None is
// empty. O(n log n) time, 8 n bytes.
absl::StatusOr<std::vector<CalibrationBin>> EqualCountBins(std::span<const float> probability,
                                                           std::span<const uint8_t> label, size_t bins);

// sum_b n_b / n |mean label_b - mean p_b|; 0 of no bins.
double CalibrationError(std::span<const CalibrationBin> bins);

// Rows per bin of equal width, [0, 1/n), ..., [(n-1)/n, 1].
struct ScoreHistogram {
  std::vector<int64_t> negatives;
  std::vector<int64_t> positives;
};
absl::StatusOr<ScoreHistogram> HistogramOfScores(std::span<const float> probability, std::span<const uint8_t> label,
                                                 size_t bins);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_COMMON_CALIBRATION_H_
