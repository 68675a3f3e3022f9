#include "tools/common/metrics_json.h"

namespace hilomoe {

nlohmann::json MetricsJson(const BinaryMetrics& metrics) {
  const auto or_null = [](const std::optional<double>& value) {
    return value.has_value() ? nlohmann::json(*value) : nlohmann::json();
  };
  return {{"rows", metrics.rows},
          {"positives", metrics.positives},
          {"mean_probability", metrics.mean_probability},
          {"auc", or_null(metrics.auc)},
          {"gauc", or_null(metrics.grouped.gauc)},
          {"groups", metrics.grouped.groups},
          {"counted_groups", metrics.grouped.counted_groups},
          {"logloss", or_null(metrics.logloss)},
          {"normalised_entropy", or_null(metrics.normalised_entropy)},
          {"ece", or_null(metrics.ece)}};
}

}  // namespace hilomoe
