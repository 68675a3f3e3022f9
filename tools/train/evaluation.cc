#include "tools/train/evaluation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "model/status_macros.h"

namespace hilomoe {

float Sigmoid(float logit) { return static_cast<float>(1 / (1 + std::exp(-static_cast<double>(logit)))); }

namespace {

absl::StatusOr<Evaluation> EvaluateRows(const ModelSpec& spec, const ModelTensors<const float>& tensors,
                                        const RowCache& rows, const ForwardMode& mode, Network<float>& network) {
  const bool experts = mode.routing_sums;
  std::vector<RoutingSums> sums(spec.blocks().size());
  for (size_t b = 0; b < sums.size(); ++b) sums[b].Reset(spec.blocks()[b]);
  Evaluation out;
  auto& [probabilities, labels, groups] = out.rows;
  probabilities.reserve(rows.rows());
  labels.reserve(rows.rows());
  if (rows.columns().groups) groups.reserve(rows.rows());
  RowReader reader(rows, kEvaluationRows);
  LabelledRows batch;
  std::vector<float> logits;
  while (true) {
    HILOMOE_ASSIGN_OR_RETURN(const bool more, reader.Next(&batch));
    if (!more) break;
    logits.resize(batch.size());
    network.Forward(tensors, batch.encoded, mode, absl::MakeSpan(logits));
    for (size_t b = 0; b < sums.size() && experts; ++b) {
      if (spec.blocks()[b].layers > 0) sums[b].Add(network.blocks()[b]->routing_sums());
    }
    for (const float logit : logits) probabilities.push_back(Sigmoid(logit));
    labels.insert(labels.end(), batch.labels.begin(), batch.labels.end());
    groups.insert(groups.end(), batch.groups.begin(), batch.groups.end());
  }
  HILOMOE_ASSIGN_OR_RETURN(out.metrics, ComputeMetrics(probabilities, labels, groups));
  const double n = static_cast<double>(rows.rows());
  for (size_t b = 0; b < sums.size() && experts; ++b) {
    const BlockSpec& block = spec.blocks()[b];
    if (block.layers == 0) continue;
    auto& to = out.utilisation.emplace_back();
    to.set_block(static_cast<uint32_t>(b));
    for (size_t l = 0; l < block.layers; ++l) {
      auto* layer = to.add_layers();
      for (size_t i = 0; i < block.experts; ++i) {
        layer->add_expert(static_cast<float>(sums[b].score[l * block.experts + i] / n));
      }
      const double most = std::log(static_cast<double>(block.experts));
      layer->set_entropy(most > 0 ? static_cast<float>(sums[b].entropy[l] / n / most) : 1.0F);
    }
  }
  return out;
}

}  // namespace

absl::StatusOr<Evaluation> Evaluate(const ModelSpec& spec, const ModelTensors<const float>& tensors,
                                    const RowCache& rows, bool experts, Network<float>& network) {
  return EvaluateRows(spec, tensors, rows, {.experts = experts, .routing_sums = experts}, network);
}

absl::StatusOr<Evaluation> EvaluateWithFixedScores(const ModelSpec& spec, const ModelTensors<const float>& tensors,
                                                   const RowCache& rows, const std::vector<std::vector<double>>& scores,
                                                   Network<float>& network) {
  return EvaluateRows(spec, tensors, rows, {.fixed_scores = &scores}, network);
}

std::vector<std::vector<double>> MeanScores(const ModelSpec& spec, const Evaluation& evaluation) {
  std::vector<std::vector<double>> means(spec.blocks().size());
  for (const auto& block : evaluation.utilisation) {
    for (const auto& layer : block.layers()) {
      means[block.block()].insert(means[block.block()].end(), layer.expert().begin(), layer.expert().end());
    }
  }
  return means;
}

double MonitorValue(v1::TrainingConfig::Monitor monitor, const BinaryMetrics& metrics) {
  constexpr double kNone = -std::numeric_limits<double>::infinity();
  switch (monitor) {
    case v1::TrainingConfig::GAUC:
      return metrics.grouped.gauc.value_or(kNone);
    case v1::TrainingConfig::LOGLOSS:
      return metrics.logloss.has_value() ? -*metrics.logloss : kNone;
    default:
      return metrics.auc.value_or(kNone);
  }
}

std::string MetricsText(const BinaryMetrics& metrics) {
  std::string text = metrics.auc.has_value() ? absl::StrFormat("AUC %.5f", *metrics.auc) : "AUC undefined (one class)";
  if (metrics.grouped.gauc.has_value()) absl::StrAppendFormat(&text, "  gAUC %.5f", *metrics.grouped.gauc);
  if (metrics.logloss.has_value()) absl::StrAppendFormat(&text, "  logloss %.5f", *metrics.logloss);
  if (metrics.ece.has_value()) absl::StrAppendFormat(&text, "  ECE %.4f", *metrics.ece);
  return text;
}

std::string UtilisationText(const ModelSpec& spec,
                            const std::vector<v1::ModelFileHeader::BlockUtilisation>& utilisation) {
  std::string text;
  for (const auto& block : utilisation) {
    for (int l = 0; l < block.layers_size(); ++l) {
      const auto& shares = block.layers(l).expert();
      const double K = shares.size();
      const auto [low, high] = std::minmax_element(shares.begin(), shares.end());
      // Loads relative to an even share: 1 = even.
      absl::StrAppendFormat(&text, "  %s layer %d: entropy %.4f of ln %d, load %.2f to %.2f of an even share\n",
                            spec.BlockName(block.block()), l, block.layers(l).entropy(), shares.size(), *low * K,
                            *high * K);
    }
  }
  return text;
}

}  // namespace hilomoe
