// How good predicted click probabilities are.
//
//   AUC      = P(score of a clicked row > score of another) + P(equal) / 2
//   gAUC     = sum_g n_g AUC_g / sum_g n_g over the groups (requests or users) that hold both classes, n_g rows each
//   logloss  = mean of -ln(label ? p : 1 - p), natural logarithm, p clamped to [1e-7, 1 - 1e-7]
//   NE       = logloss / H(q), H(q) = -q ln q - (1-q) ln(1-q), q the mean label: below 1 is better than predicting q
//              (He et al., 2014)
//   ECE      = sum_b n_b / n |mean label_b - mean p_b| over 15 bins of equal width, [0, 1/15), ..., [14/15, 1]
//              (Guo et al., 2017)
//
// AUC counts pairs in integers and is exact; the sums are in double. O(n log n) time, 16 n bytes beside the input.
//
// Threads: pure functions. Errors: INVALID_ARGUMENT for spans of different lengths, for a score that is NaN or a
// probability outside [0, 1], naming the row. What has no value (AUC of one class, anything of no rows) is nullopt,
// never NaN.
#ifndef HILOMOE_TOOLS_COMMON_METRICS_H_
#define HILOMOE_TOOLS_COMMON_METRICS_H_

#include <cstdint>
#include <optional>
#include <span>

#include "absl/status/statusor.h"

namespace hilomoe {

// How near to 0 and 1 a probability may come in logloss. About float's spacing below 1: an error of a saturated
// prediction costs ln(1e7) = 16.1 at most.
inline constexpr double kLoglossClamp = 1e-7;

struct GroupedAuc {
  std::optional<double> gauc;
  int64_t groups = 0;          // all
  int64_t counted_groups = 0;  // with both classes
  int64_t counted_rows = 0;    // in those
};

struct BinaryMetrics {
  int64_t rows = 0;
  int64_t positives = 0;
  double mean_probability = 0;  // 0 of no rows; divide by positives/rows for the calibration ratio
  std::optional<double> auc;
  std::optional<double> logloss;
  std::optional<double> normalised_entropy;
  std::optional<double> ece;
  GroupedAuc grouped;  // all zero without groups
};

// label: 0 or 1 (anything else counts as 1). group: one key per row, or empty for no gAUC; rows of a group need not be
// together.
absl::StatusOr<BinaryMetrics> ComputeMetrics(std::span<const float> probability, std::span<const uint8_t> label,
                                             std::span<const uint64_t> group = {});

// The parts, for scores of any range (logits, popularity); infinite ones are in order.
absl::StatusOr<std::optional<double>> ComputeAuc(std::span<const float> score, std::span<const uint8_t> label);
absl::StatusOr<GroupedAuc> ComputeGroupedAuc(std::span<const float> score, std::span<const uint8_t> label,
                                             std::span<const uint64_t> group);

// mean of max(z, 0) - z*label + ln(1 + exp(-|z|)): logloss of the probabilities 1 / (1 + exp(-z)), without clamping and
// without overflow for any finite z. nullopt of no rows.
absl::StatusOr<std::optional<double>> LogLossFromLogits(std::span<const float> logit, std::span<const uint8_t> label);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_COMMON_METRICS_H_
