// How much a test metric would vary with other test rows: a paired bootstrap (Efron, 1979).
//
// One resample draws as many units as there are, with replacement; the unit is the test row, or, when rows have groups
// (requests, users), the whole group, because rows of one request are not independent. Every run is measured on the
// same resample, so that differences between runs are paired. With w_i how often row i was drawn:
//   AUC     = sum over pairs (i clicked, j not) of w_i w_j ([s_i > s_j] + [s_i = s_j] / 2) / sum of w_i w_j
//   gAUC    = sum_g w_g n_g AUC_g / sum_g w_g n_g over groups that hold both classes
//   logloss = sum_i w_i loss_i / sum_i w_i, clamped as in tools/common/metrics.h
#ifndef HILOMOE_TOOLS_TRAIN_BOOTSTRAP_H_
#define HILOMOE_TOOLS_TRAIN_BOOTSTRAP_H_

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

namespace hilomoe {

enum class TestMetric { kAuc = 0, kGauc = 1, kLogloss = 2 };
constexpr size_t kTestMetrics = 3;

struct BootstrapOptions {
  uint32_t resamples = 1000;
  uint64_t seed = 1;  // resample b is a function of seed, b and the number of units alone
  int threads = 1;
};

// values[metric][b * runs + r]; NaN where undefined (a resample of one class; gAUC without groups).
using BootstrapValues = std::array<std::vector<double>, kTestMetrics>;

// scores[r]: run r's probabilities of the same rows. groups: a key per row, or empty. O(n log n) per run to sort once,
// then O(n) per run and resample. Errors: those of ComputeAuc.
absl::StatusOr<BootstrapValues> Bootstrap(const std::vector<std::vector<float>>& scores,
                                          std::span<const uint8_t> labels, std::span<const uint64_t> groups,
                                          const BootstrapOptions& options);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_BOOTSTRAP_H_
