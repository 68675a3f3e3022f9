#include "tools/common/metrics.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "model/status_macros.h"

namespace hilomoe {
namespace {

constexpr int kCalibrationBins = 15;

// A 32-bit integer that orders like the float; both zeros are equal.
uint32_t OrderedBits(float score) {
  const uint32_t bits = std::bit_cast<uint32_t>(score + 0.0f);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

// Score above, label in the lowest bit: sorting them sorts by score.
uint64_t Key(float score, uint8_t label) { return (uint64_t{OrderedBits(score)} << 1) | (label != 0 ? 1 : 0); }

uint64_t KeyOf(uint64_t key) { return key; }

struct GroupedKey {
  uint64_t group;
  uint64_t key;
};
uint64_t KeyOf(const GroupedKey& grouped) { return grouped.key; }

// AUC of rows sorted by key; nullopt of one class. Counts every pair of different labels twice, so that half a pair is
// an integer; 2 * (n/2)^2 stays below 2^64 for n below 6e9.
template <typename Iterator>
std::optional<double> AucOfSorted(Iterator begin, Iterator end) {
  uint64_t negatives = 0;
  uint64_t positives = 0;
  uint64_t half_pairs = 0;
  while (begin != end) {
    const uint64_t score = KeyOf(*begin) >> 1;
    uint64_t tied_negatives = 0;
    uint64_t tied_positives = 0;
    for (; begin != end && KeyOf(*begin) >> 1 == score; ++begin) {
      const uint64_t positive = KeyOf(*begin) & 1;
      tied_positives += positive;
      tied_negatives += 1 - positive;
    }
    half_pairs += tied_positives * (2 * negatives + tied_negatives);
    negatives += tied_negatives;
    positives += tied_positives;
  }
  if (negatives == 0 || positives == 0) return std::nullopt;
  return static_cast<double>(half_pairs) / (2.0 * static_cast<double>(negatives) * static_cast<double>(positives));
}

absl::Status CheckSizes(size_t scores, size_t labels) {
  if (scores == labels) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(scores, " scores, but ", labels, " labels"));
}

absl::Status CheckNotNan(std::span<const float> score) {
  const auto nan = std::find_if(score.begin(), score.end(), [](float s) { return std::isnan(s); });
  if (nan == score.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the score of row ", nan - score.begin(), " is NaN; has training diverged?"));
}

double Entropy(double q) { return -q * std::log(q) - (1 - q) * std::log1p(-q); }

struct CalibrationBin {
  double probability = 0;
  double label = 0;
};

}  // namespace

absl::StatusOr<std::optional<double>> ComputeAuc(std::span<const float> score, std::span<const uint8_t> label) {
  HILOMOE_RETURN_IF_ERROR(CheckSizes(score.size(), label.size()));
  HILOMOE_RETURN_IF_ERROR(CheckNotNan(score));
  std::vector<uint64_t> keys(score.size());
  for (size_t i = 0; i < keys.size(); ++i) keys[i] = Key(score[i], label[i]);
  std::sort(keys.begin(), keys.end());
  return AucOfSorted(keys.begin(), keys.end());
}

absl::StatusOr<GroupedAuc> ComputeGroupedAuc(std::span<const float> score, std::span<const uint8_t> label,
                                             std::span<const uint64_t> group) {
  HILOMOE_RETURN_IF_ERROR(CheckSizes(score.size(), label.size()));
  HILOMOE_RETURN_IF_ERROR(CheckNotNan(score));
  if (group.size() != score.size()) {
    return absl::InvalidArgumentError(absl::StrCat(score.size(), " scores, but ", group.size(), " group keys"));
  }
  std::vector<GroupedKey> keys(score.size());
  for (size_t i = 0; i < keys.size(); ++i) keys[i] = {group[i], Key(score[i], label[i])};
  std::sort(keys.begin(), keys.end(), [](const GroupedKey& a, const GroupedKey& b) {
    return a.group != b.group ? a.group < b.group : a.key < b.key;
  });
  GroupedAuc result;
  double weighted = 0;
  for (auto begin = keys.begin(); begin != keys.end();) {
    const uint64_t key = begin->group;
    const auto end = std::find_if(begin, keys.end(), [&](const GroupedKey& row) { return row.group != key; });
    ++result.groups;
    if (const std::optional<double> auc = AucOfSorted(begin, end)) {
      ++result.counted_groups;
      result.counted_rows += end - begin;
      weighted += *auc * static_cast<double>(end - begin);
    }
    begin = end;
  }
  if (result.counted_rows > 0) result.gauc = weighted / static_cast<double>(result.counted_rows);
  return result;
}

absl::StatusOr<BinaryMetrics> ComputeMetrics(std::span<const float> probability, std::span<const uint8_t> label,
                                             std::span<const uint64_t> group) {
  BinaryMetrics metrics;
  HILOMOE_ASSIGN_OR_RETURN(metrics.auc, ComputeAuc(probability, label));
  if (!group.empty()) {
    HILOMOE_ASSIGN_OR_RETURN(metrics.grouped, ComputeGroupedAuc(probability, label, group));
  }
  double log_likelihood = 0;
  double probability_sum = 0;
  std::array<CalibrationBin, kCalibrationBins> bins;
  for (size_t i = 0; i < probability.size(); ++i) {
    const double p = probability[i];
    if (!(p >= 0 && p <= 1)) {
      return absl::InvalidArgumentError(absl::StrCat("the probability of row ", i, " is ", p, ", not in [0, 1]"));
    }
    const bool positive = label[i] != 0;
    metrics.positives += positive ? 1 : 0;
    probability_sum += p;
    const double clamped = std::clamp(p, kLoglossClamp, 1 - kLoglossClamp);
    log_likelihood += positive ? std::log(clamped) : std::log1p(-clamped);
    const int bin = std::min(static_cast<int>(p * kCalibrationBins), kCalibrationBins - 1);
    bins[static_cast<size_t>(bin)].probability += p;
    bins[static_cast<size_t>(bin)].label += positive ? 1 : 0;
  }
  metrics.rows = static_cast<int64_t>(probability.size());
  if (metrics.rows == 0) return metrics;
  const double rows = static_cast<double>(metrics.rows);
  metrics.mean_probability = probability_sum / rows;
  metrics.logloss = -log_likelihood / rows;
  if (metrics.positives > 0 && metrics.positives < metrics.rows) {
    metrics.normalised_entropy = *metrics.logloss / Entropy(static_cast<double>(metrics.positives) / rows);
  }
  double error = 0;
  for (const CalibrationBin& bin : bins) error += std::abs(bin.label - bin.probability);
  metrics.ece = error / rows;
  return metrics;
}

absl::StatusOr<std::optional<double>> LogLossFromLogits(std::span<const float> logit, std::span<const uint8_t> label) {
  HILOMOE_RETURN_IF_ERROR(CheckSizes(logit.size(), label.size()));
  HILOMOE_RETURN_IF_ERROR(CheckNotNan(logit));
  if (logit.empty()) return std::nullopt;
  double sum = 0;
  for (size_t i = 0; i < logit.size(); ++i) {
    const double z = logit[i];
    sum += std::max(z, 0.0) - (label[i] != 0 ? z : 0) + std::log1p(std::exp(-std::abs(z)));
  }
  return sum / static_cast<double>(logit.size());
}

}  // namespace hilomoe
