// The process_* series that every Prometheus client offers, from /proc, and how the control groups slow us down.
#ifndef HILOMOE_SERVER_PROCESS_METRICS_H_
#define HILOMOE_SERVER_PROCESS_METRICS_H_

#include <string>
#include <vector>

#include "prometheus/metric_family.h"

namespace hilomoe {

// Appends what can be read; what cannot is left out.
void AppendProcessMetrics(std::vector<prometheus::MetricFamily>* families);

// directories: CgroupDirectories("cpu").
void AppendCpuThrottling(const std::vector<std::string>& directories, std::vector<prometheus::MetricFamily>* families);

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_PROCESS_METRICS_H_
