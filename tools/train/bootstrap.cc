#include "tools/train/bootstrap.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "tools/common/metrics.h"
#include "tools/train/parallel.h"
#include "tools/train/random.h"

namespace hilomoe {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

// Rows by group: those of group g are rows[begin[g]] .. rows[begin[g + 1] - 1].
struct Groups {
  std::vector<uint32_t> of_row, begin, rows;

  explicit Groups(std::span<const uint64_t> keys) : of_row(keys.size()), rows(keys.size()) {
    std::iota(rows.begin(), rows.end(), 0);
    std::stable_sort(rows.begin(), rows.end(), [&](uint32_t a, uint32_t b) { return keys[a] < keys[b]; });
    for (size_t i = 0; i < rows.size(); ++i) {
      if (i == 0 || keys[rows[i]] != keys[rows[i - 1]]) begin.push_back(static_cast<uint32_t>(i));
      of_row[rows[i]] = static_cast<uint32_t>(begin.size() - 1);
    }
    begin.push_back(static_cast<uint32_t>(rows.size()));
  }
  size_t size() const { return begin.size() - 1; }
};

// A run's rows by rising score, packed: the row, whether it is the last of its score, its label.
struct SortedRun {
  std::vector<uint32_t> order;
  std::vector<float> loss;                    // per row
  std::vector<double> group_auc, group_rows;  // per group: n_g AUC_g and n_g; both 0 of one class
};

constexpr uint32_t Pack(uint32_t row, bool last, uint8_t label) {
  return row << 2 | (last ? 2u : 0u) | (label ? 1u : 0u);
}

absl::StatusOr<SortedRun> Sort(std::span<const float> scores, std::span<const uint8_t> labels, const Groups& groups) {
  SortedRun run;
  // For its checks.
  HILOMOE_RETURN_IF_ERROR(ComputeAuc(scores, labels).status());
  std::vector<uint32_t> rows(scores.size());
  std::iota(rows.begin(), rows.end(), 0);
  std::sort(rows.begin(), rows.end(), [&](uint32_t a, uint32_t b) { return scores[a] < scores[b]; });
  for (size_t i = 0; i < rows.size(); ++i) {
    const bool last = i + 1 == rows.size() || scores[rows[i]] < scores[rows[i + 1]];
    run.order.push_back(Pack(rows[i], last, labels[rows[i]]));
  }
  for (size_t i = 0; i < scores.size(); ++i) {
    const double p = std::clamp(static_cast<double>(scores[i]), kLoglossClamp, 1 - kLoglossClamp);
    run.loss.push_back(static_cast<float>(labels[i] != 0 ? -std::log(p) : -std::log1p(-p)));
  }
  std::vector<float> group_scores;
  std::vector<uint8_t> group_labels;
  for (size_t g = 0; g < groups.size(); ++g) {
    group_scores.clear();
    group_labels.clear();
    for (uint32_t i = groups.begin[g]; i < groups.begin[g + 1]; ++i) {
      group_scores.push_back(scores[groups.rows[i]]);
      group_labels.push_back(labels[groups.rows[i]]);
    }
    HILOMOE_ASSIGN_OR_RETURN(const std::optional<double> auc, ComputeAuc(group_scores, group_labels));
    const double n = auc.has_value() ? static_cast<double>(group_scores.size()) : 0;
    run.group_rows.push_back(n);
    run.group_auc.push_back(n * auc.value_or(0));
  }
  return run;
}

double WeightedAuc(const SortedRun& run, const uint16_t* weights) {
  // Integers below 2^53: exact. Pairs count twice, so that half a pair is whole.
  uint64_t negatives = 0, positives = 0, half_pairs = 0, tied_negatives = 0, tied_positives = 0;
  for (const uint32_t packed : run.order) {
    const uint64_t weight = weights[packed >> 2];
    const uint64_t positive = packed & 1;
    tied_positives += weight * positive;
    tied_negatives += weight * (1 - positive);
    if ((packed & 2) == 0) continue;
    half_pairs += tied_positives * (2 * negatives + tied_negatives);
    negatives += tied_negatives;
    positives += tied_positives;
    tied_negatives = tied_positives = 0;
  }
  if (negatives == 0 || positives == 0) return kNone;
  return static_cast<double>(half_pairs) / (2.0 * static_cast<double>(negatives) * static_cast<double>(positives));
}

double WeightedGauc(const SortedRun& run, const uint16_t* group_weights) {
  double sum = 0, rows = 0;
  for (size_t g = 0; g < run.group_rows.size(); ++g) {
    sum += group_weights[g] * run.group_auc[g];
    rows += group_weights[g] * run.group_rows[g];
  }
  return rows > 0 ? sum / rows : kNone;
}

double WeightedLoss(const SortedRun& run, const uint16_t* weights) {
  double sum = 0, count = 0;
  for (size_t i = 0; i < run.loss.size(); ++i) {
    sum += weights[i] * static_cast<double>(run.loss[i]);
    count += weights[i];
  }
  return count > 0 ? sum / count : kNone;
}

}  // namespace

absl::StatusOr<BootstrapValues> Bootstrap(const std::vector<std::vector<float>>& scores,
                                          std::span<const uint8_t> labels, std::span<const uint64_t> groups,
                                          const BootstrapOptions& options) {
  const size_t rows = labels.size(), count = scores.size();
  if (rows == 0) return absl::InvalidArgumentError("no test rows to resample");
  if (rows >= 1u << 30) return absl::InvalidArgumentError(absl::StrCat(rows, " test rows are too many to resample"));
  if (!groups.empty() && groups.size() != rows) {
    return absl::InvalidArgumentError(absl::StrCat(rows, " labels, but ", groups.size(), " group keys"));
  }
  const Groups by_group(groups);
  std::vector<SortedRun> runs;
  for (const std::vector<float>& run : scores) {
    HILOMOE_ASSIGN_OR_RETURN(SortedRun sorted, Sort(run, labels, by_group));
    runs.push_back(std::move(sorted));
  }
  BootstrapValues values;
  for (std::vector<double>& of_metric : values) of_metric.assign(options.resamples * count, kNone);
  const bool grouped = !groups.empty();
  const size_t units = grouped ? by_group.size() : rows;
  Parallel parallel(std::max(1, options.threads));
  parallel.Run([&](int thread) {
    // A unit drawn 65,535 times in one resample does not happen: a single unit is drawn once.
    std::vector<uint16_t> unit_weights(units), row_weights(grouped ? rows : 0);
    const auto [first, last] = parallel.Slice(options.resamples, thread);
    for (size_t b = first; b < last; ++b) {
      Random random(options.seed, 0xB0075, b);
      std::fill(unit_weights.begin(), unit_weights.end(), 0);
      for (size_t i = 0; i < units; ++i) ++unit_weights[random.Below(units)];
      for (size_t i = 0; i < row_weights.size(); ++i) row_weights[i] = unit_weights[by_group.of_row[i]];
      const uint16_t* const weights = grouped ? row_weights.data() : unit_weights.data();
      for (size_t r = 0; r < count; ++r) {
        const auto set = [&](TestMetric metric, double value) {
          values[static_cast<size_t>(metric)][b * count + r] = value;
        };
        set(TestMetric::kAuc, WeightedAuc(runs[r], weights));
        if (grouped) set(TestMetric::kGauc, WeightedGauc(runs[r], unit_weights.data()));
        set(TestMetric::kLogloss, WeightedLoss(runs[r], weights));
      }
    }
  });
  return values;
}

}  // namespace hilomoe
