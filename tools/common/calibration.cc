#include "tools/common/calibration.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "model/status_macros.h"

namespace hilomoe {
namespace {

absl::Status CheckRows(std::span<const float> probability, std::span<const uint8_t> label) {
  if (probability.size() != label.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(probability.size(), " probabilities, but ", label.size(), " labels"));
  }
  for (size_t i = 0; i < probability.size(); ++i) {
    if (probability[i] >= 0 && probability[i] <= 1) continue;  // false for NaN
    return absl::InvalidArgumentError(
        absl::StrCat("the probability of row ", i, " is ", probability[i], ", not in [0, 1]"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<CalibrationBin>> EqualCountBins(std::span<const float> probability,
                                                           std::span<const uint8_t> label, size_t bins) {
  HILOMOE_RETURN_IF_ERROR(CheckRows(probability, label));
  // The bits of floats that are not negative order like them (-0 + 0 is 0). The label stands below, and is no part of
  // what is compared for equality.
  std::vector<uint64_t> keys(probability.size());
  for (size_t i = 0; i < keys.size(); ++i) {
    keys[i] = uint64_t{std::bit_cast<uint32_t>(probability[i] + 0.0F)} << 1 | (label[i] != 0 ? 1 : 0);
  }
  std::sort(keys.begin(), keys.end());
  std::vector<CalibrationBin> out;
  const size_t n = keys.size();
  for (size_t i = 0, b = 0; b < bins; ++b) {
    size_t end = n * (b + 1) / bins;
    if (end <= i) continue;  // a run of equal probabilities took this bin's rows
    while (end < n && keys[end] >> 1 == keys[end - 1] >> 1) ++end;
    CalibrationBin& bin = out.emplace_back();
    bin.rows = static_cast<int64_t>(end - i);
    for (; i < end; ++i) {
      bin.mean_probability += std::bit_cast<float>(static_cast<uint32_t>(keys[i] >> 1));
      bin.mean_label += static_cast<double>(keys[i] & 1);
    }
    bin.mean_probability /= static_cast<double>(bin.rows);
    bin.mean_label /= static_cast<double>(bin.rows);
  }
  return out;
}

double CalibrationError(std::span<const CalibrationBin> bins) {
  double error = 0, rows = 0;
  for (const CalibrationBin& bin : bins) {
    error += static_cast<double>(bin.rows) * std::abs(bin.mean_label - bin.mean_probability);
    rows += static_cast<double>(bin.rows);
  }
  return rows > 0 ? error / rows : 0;
}

absl::StatusOr<ScoreHistogram> HistogramOfScores(std::span<const float> probability, std::span<const uint8_t> label,
                                                 size_t bins) {
  HILOMOE_RETURN_IF_ERROR(CheckRows(probability, label));
  ScoreHistogram out{std::vector<int64_t>(bins), std::vector<int64_t>(bins)};
  for (size_t i = 0; i < probability.size(); ++i) {
    const double place = static_cast<double>(probability[i]) * static_cast<double>(bins);
    const size_t bin = std::min(static_cast<size_t>(place), bins - 1);
    ++(label[i] != 0 ? out.positives : out.negatives)[bin];
  }
  return out;
}

}  // namespace hilomoe
