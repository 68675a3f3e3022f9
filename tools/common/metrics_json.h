// Metrics as the JSON that trainer and client write.
#ifndef HILOMOE_TOOLS_COMMON_METRICS_JSON_H_
#define HILOMOE_TOOLS_COMMON_METRICS_JSON_H_

#include "nlohmann/json.hpp"
#include "tools/common/metrics.h"

namespace hilomoe {

// {"rows", "positives", "mean_probability", "auc", "gauc", "groups", "counted_groups", "logloss", "normalised_entropy",
// "ece"}; a metric without a value is null.
nlohmann::json MetricsJson(const BinaryMetrics& metrics);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_COMMON_METRICS_JSON_H_
