// Series about loads, beside those of the models that are served.
#ifndef HILOMOE_SERVER_REPOSITORY_METRICS_H_
#define HILOMOE_SERVER_REPOSITORY_METRICS_H_

#include <vector>

#include "prometheus/metric_family.h"
#include "server/model_repository.h"

namespace hilomoe {

// The states of all versions that are served or should be, failures by model, and whether the repository can be read.
void AppendRepositoryMetrics(const ModelRepository& repository, std::vector<prometheus::MetricFamily>* families);

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_REPOSITORY_METRICS_H_
