// Making the families that Prometheus is shown.
#ifndef HILOMOE_SERVER_METRIC_FAMILIES_H_
#define HILOMOE_SERVER_METRIC_FAMILIES_H_

#include <string>
#include <utility>
#include <vector>

#include "prometheus/metric_family.h"
#include "server/model_metrics.h"

namespace hilomoe {

using Labels = std::vector<prometheus::ClientMetric::Label>;
using Families = std::vector<prometheus::MetricFamily>;

// Good until the next family is added.
inline prometheus::MetricFamily& AddFamily(const char* name, const char* help, prometheus::MetricType type,
                                           Families* families) {
  return families->emplace_back(prometheus::MetricFamily{name, help, type, {}});
}

inline void AddCounter(Labels labels, double value, prometheus::MetricFamily* family) {
  prometheus::ClientMetric& metric = family->metric.emplace_back();
  metric.label = std::move(labels);
  metric.counter.value = value;
}

inline void AddGauge(Labels labels, double value, prometheus::MetricFamily* family) {
  prometheus::ClientMetric& metric = family->metric.emplace_back();
  metric.label = std::move(labels);
  metric.gauge.value = value;
}

inline Labels With(Labels labels, const char* name, std::string value) {
  labels.push_back({name, std::move(value)});
  return labels;
}

inline Labels ModelLabels(const ModelMetrics& model) {
  return {{"model", model.facts().name}, {"version", std::to_string(model.facts().version)}};
}

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_METRIC_FAMILIES_H_
