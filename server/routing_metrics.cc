#include "server/routing_metrics.h"

#include <cmath>
#include <utility>

#include "runtime/routing_statistics.h"

namespace hilomoe {
namespace {

using prometheus::MetricFamily;
using prometheus::MetricType;

// Half the sum of absolute differences: the part of the routing that would have to move to be as it was in training.
double TotalVariation(const std::vector<double>& mass, double rows, const std::vector<float>& trained) {
  double sum = 0;
  for (size_t i = 0; i < mass.size(); ++i) sum += std::fabs(mass[i] / rows - static_cast<double>(trained[i]));
  return sum / 2;
}

}  // namespace

std::vector<RoutingLayerFacts> DescribeRouting(const ModelSpec& spec, const v1::ModelFileHeader& header) {
  std::vector<RoutingLayerFacts> layers;
  for (size_t b = 0; b < spec.blocks().size(); ++b) {
    const BlockSpec& block = spec.blocks()[b];
    const v1::ModelFileHeader::BlockUtilisation* stored = nullptr;
    for (const auto& utilisation : header.utilisation()) {
      if (utilisation.block() == b && static_cast<size_t>(utilisation.layers_size()) == block.layers) {
        stored = &utilisation;
      }
    }
    for (size_t l = 0; l < block.layers; ++l) {
      RoutingLayerFacts& layer = layers.emplace_back(RoutingLayerFacts{spec.BlockName(b), l, {}, 0});
      if (stored == nullptr) continue;
      const auto& trained = stored->layers(static_cast<int>(l));
      if (static_cast<size_t>(trained.expert_size()) != block.experts) continue;
      layer.trained.assign(trained.expert().begin(), trained.expert().end());
      layer.trained_entropy = trained.entropy();
    }
  }
  return layers;
}

void AppendRoutingMetrics(const std::vector<std::shared_ptr<const ModelMetrics>>& models, Families* families) {
  MetricFamily rows{"hilomoe_routing_sampled_rows_total",
                    "Rows on which routing was counted; each passes every block and layer.",
                    MetricType::Counter,
                    {}};
  MetricFamily mass{"hilomoe_expert_utilisation_total",
                    "Sum of an expert's routing scores over the sampled rows; divided by them, its utilisation.",
                    MetricType::Counter,
                    {}};
  MetricFamily trained{"hilomoe_expert_utilisation_trained",
                       "An expert's mean routing score on the validation rows at the end of training.",
                       MetricType::Gauge,
                       {}};
  MetricFamily entropy{"hilomoe_routing_entropy_total",
                       "Sum over the sampled rows of the entropy of a layer's routing scores, as a share of ln K.",
                       MetricType::Counter,
                       {}};
  MetricFamily trained_entropy{"hilomoe_routing_entropy_trained",
                               "Mean entropy of a layer's routing scores, as a share of ln K, at the end of training.",
                               MetricType::Gauge,
                               {}};
  MetricFamily drift{"hilomoe_routing_drift",
                     "Half the sum over a layer's experts of |utilisation since the model was loaded - trained one|: 0 "
                     "= as in training, 1 = wholly other experts.",
                     MetricType::Gauge,
                     {}};
  for (const auto& model : models) {
    if (model->routing() == nullptr || model->facts().routing.empty()) continue;
    const RoutingStatistics::Totals totals = model->routing()->Sum();
    const Labels of_model = ModelLabels(*model);
    AddCounter(of_model, totals.rows, &rows);
    size_t experts = 0;
    for (const auto& layer : totals.layers) experts += layer.mass.size();
    for (size_t l = 0; l < totals.layers.size(); ++l) {
      const RoutingStatistics::Layer& layer = totals.layers[l];
      const RoutingLayerFacts& facts = model->facts().routing[l];
      const Labels labels = With(With(of_model, "block", facts.block), "layer", std::to_string(facts.layer));
      AddCounter(labels, layer.entropy, &entropy);
      if (!facts.trained.empty()) {
        AddGauge(labels, static_cast<double>(facts.trained_entropy), &trained_entropy);
        if (totals.rows > 0) AddGauge(labels, TotalVariation(layer.mass, totals.rows, facts.trained), &drift);
      }
      if (experts > kMaxExpertSeries) continue;
      for (size_t i = 0; i < layer.mass.size(); ++i) {
        const Labels of_expert = With(labels, "expert", std::to_string(i));
        AddCounter(of_expert, layer.mass[i], &mass);
        if (!facts.trained.empty()) AddGauge(of_expert, static_cast<double>(facts.trained[i]), &trained);
      }
    }
  }
  for (MetricFamily* family : {&rows, &mass, &trained, &entropy, &trained_entropy, &drift}) {
    families->push_back(std::move(*family));
  }
}

}  // namespace hilomoe
