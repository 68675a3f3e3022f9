#include "tools/client/score_report.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "tools/common/metrics_json.h"

namespace hilomoe {
namespace {

constexpr std::pair<const char*, double> kPercentiles[] = {
    {"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}, {"max", 1}};

double LatencyMs(const LatencyHistogram& latency, double fraction) {
  return (fraction < 1 ? latency.PercentileNs(fraction) : static_cast<double>(latency.max_ns())) / 1e6;
}

double PerSecond(int64_t count, double seconds) { return static_cast<double>(count) / std::max(seconds, 1e-9); }

void AppendMetric(const char* name, const std::optional<double>& value, std::string* text) {
  if (value.has_value()) absl::StrAppendFormat(text, "  %s %.6f", name, *value);
}

}  // namespace

std::string ScoreReport::ToText() const {
  std::string text = absl::StrFormat("%d rows in %d requests, %.2f s: %.0f requests/s, %.0f rows/s\n", rows, requests,
                                     seconds, PerSecond(requests, seconds), PerSecond(rows, seconds));
  absl::StrAppend(&text, "model '", model, "'");
  for (const auto& [version, count] : rows_by_version) {
    absl::StrAppend(&text, ", version ", version);
    if (rows_by_version.size() > 1) absl::StrAppend(&text, " (", count, " rows)");
  }
  if (retries > 0) absl::StrAppend(&text, ", ", retries, " retries");
  text += '\n';
  if (!absent_features.empty()) {
    absl::StrAppend(&text, "not in the log, left to their defaults: ", absl::StrJoin(absent_features, ", "), "\n");
  }
  if (context_splits > 0) {
    absl::StrAppend(&text, context_splits, " times a context cell changed inside a group and began a new request\n");
  }
  if (latency.count() > 0) {
    text += "latency ms";
    for (const auto& [name, fraction] : kPercentiles) {
      absl::StrAppendFormat(&text, "  %s %.3f", name, LatencyMs(latency, fraction));
    }
    text += '\n';
  }
  if (metrics.has_value()) {
    absl::StrAppendFormat(&text, "%d labelled rows, %d positive", metrics->rows, metrics->positives);
    AppendMetric("AUC", metrics->auc, &text);
    AppendMetric("gAUC", metrics->grouped.gauc, &text);
    AppendMetric("logloss", metrics->logloss, &text);
    AppendMetric("normalised entropy", metrics->normalised_entropy, &text);
    text += '\n';
  }
  return text;
}

std::string ScoreReport::ToJson() const {
  nlohmann::json versions = nlohmann::json::object();
  for (const auto& [version, count] : rows_by_version) versions[absl::StrCat(version)] = count;
  nlohmann::json latency_ms = nlohmann::json::object();
  for (const auto& [name, fraction] : kPercentiles) latency_ms[name] = LatencyMs(latency, fraction);
  const nlohmann::json report = {{"model", model},
                                 {"rows_by_version", versions},
                                 {"rows", rows},
                                 {"requests", requests},
                                 {"retries", retries},
                                 {"context_splits", context_splits},
                                 {"seconds", seconds},
                                 {"requests_per_second", PerSecond(requests, seconds)},
                                 {"rows_per_second", PerSecond(rows, seconds)},
                                 {"latency_ms", latency_ms},
                                 {"absent_features", absent_features},
                                 {"metrics", metrics.has_value() ? MetricsJson(*metrics) : nlohmann::json()}};
  // Names come from outside: what is not UTF-8 is replaced, not thrown at.
  return report.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace hilomoe
