// The series about routing: how a model's experts are used, beside how they were used when it was trained.
#ifndef HILOMOE_SERVER_ROUTING_METRICS_H_
#define HILOMOE_SERVER_ROUTING_METRICS_H_

#include <memory>
#include <vector>

#include "hilomoe/v1/model_file.pb.h"
#include "model/model_spec.h"
#include "server/metric_families.h"
#include "server/model_metrics.h"

namespace hilomoe {

// Series with an expert label are shown of models with at most so many experts, all layers together; of larger ones
// there are those by layer alone.
inline constexpr size_t kMaxExpertSeries = 2048;

// Names of the layers of RoutingStatistics::Totals, with what the header stores of them; nothing where what it stores
// has another shape than the model.
std::vector<RoutingLayerFacts> DescribeRouting(const ModelSpec& spec, const v1::ModelFileHeader& header);

void AppendRoutingMetrics(const std::vector<std::shared_ptr<const ModelMetrics>>& models, Families* families);

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_ROUTING_METRICS_H_
