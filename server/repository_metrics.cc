#include "server/repository_metrics.h"

#include <string>
#include <utility>

namespace hilomoe {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

ClientMetric& AddMetric(std::vector<ClientMetric::Label> labels, MetricFamily* family) {
  ClientMetric& metric = family->metric.emplace_back();
  metric.label = std::move(labels);
  return metric;
}

}  // namespace

void AppendRepositoryMetrics(const ModelRepository& repository, std::vector<MetricFamily>* families) {
  MetricFamily states{"hilomoe_model_state",
                      "1 for the state that a version is in; without a version: of the model's directory or policy.",
                      MetricType::Gauge,
                      {}};
  MetricFamily failures{"hilomoe_model_load_failures_total", "Loads that failed.", MetricType::Counter, {}};
  MetricFamily breakages{
      "hilomoe_model_breakages_total", "Mapped files found changed while they were served.", MetricType::Counter, {}};
  MetricFamily readable{
      "hilomoe_model_repository_readable", "0 while the model repository cannot be read.", MetricType::Gauge, {}};
  MetricFamily spare{"hilomoe_spare_model_memory_bytes",
                     "Memory that a replaced version has left for the next one.",
                     MetricType::Gauge,
                     {}};
  AddMetric({}, &spare).gauge.value = static_cast<double>(repository.spare_bytes());
  ClientMetric& root = AddMetric({}, &readable);
  root.gauge.value = 1;
  std::string without_version;  // told once a model, whatever the number of reasons
  for (const ModelStatus& status : repository.Index()) {
    if (status.model.empty()) {
      root.gauge.value = 0;
      continue;
    }
    if (status.state == ModelState::kUnloaded || (status.version == 0 && status.model == without_version)) continue;
    if (status.version == 0) without_version = status.model;
    const std::string version = status.version > 0 ? std::to_string(status.version) : "";
    for (int i = 0; i < kModelStates; ++i) {
      AddMetric({{"model", status.model}, {"version", version}, {"state", kModelStateNames[i]}}, &states).gauge.value =
          i == static_cast<int>(status.state) ? 1 : 0;
    }
  }
  for (const ModelCounts& counts : repository.Counts()) {
    AddMetric({{"model", counts.model}}, &failures).counter.value = static_cast<double>(counts.load_failures);
    AddMetric({{"model", counts.model}}, &breakages).counter.value = static_cast<double>(counts.breakages);
  }
  for (MetricFamily* family : {&states, &failures, &breakages, &readable, &spare})
    families->push_back(std::move(*family));
}

}  // namespace hilomoe
