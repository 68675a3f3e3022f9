// Scoring encoded rows with a network, and what is measured on them.
#ifndef HILOMOE_TOOLS_TRAIN_EVALUATION_H_
#define HILOMOE_TOOLS_TRAIN_EVALUATION_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "hilomoe/v1/model_file.pb.h"
#include "hilomoe/v1/training_config.pb.h"
#include "model/model_spec.h"
#include "model/tensor_registry.h"
#include "tools/common/metrics.h"
#include "tools/train/network.h"
#include "tools/train/row_cache.h"

namespace hilomoe {

// Rows that Evaluate scores at a time.
inline constexpr size_t kEvaluationRows = 4096;

struct Evaluation {
  BinaryMetrics metrics;
  // Mean scores and entropy of every block with experts; empty when experts are off.
  std::vector<v1::ModelFileHeader::BlockUtilisation> utilisation;
  struct Rows {
    std::vector<float> probabilities;
    std::vector<uint8_t> labels;
    std::vector<uint64_t> groups;  // empty without group_by
  };
  Rows rows;
};

// Reads the rows block by block; 13 bytes a row are kept for the metrics, which take 16 more while they are computed.
absl::StatusOr<Evaluation> Evaluate(const ModelSpec& spec, const ModelTensors<const float>& tensors,
                                    const RowCache& rows, bool experts, Network<float>& network);

// What the choice of experts per row is worth: the same rows with every row's scores replaced by `scores` (per block
// [L*K]). The difference to Evaluate with experts is the value of routing.
absl::StatusOr<Evaluation> EvaluateWithFixedScores(const ModelSpec& spec, const ModelTensors<const float>& tensors,
                                                   const RowCache& rows, const std::vector<std::vector<double>>& scores,
                                                   Network<float>& network);
// The mean scores of an evaluation with experts, per block [L*K]; empty for blocks without experts.
std::vector<std::vector<double>> MeanScores(const ModelSpec& spec, const Evaluation& evaluation);

float Sigmoid(float logit);

// The monitored number, larger = better: AUC, gAUC, or logloss with its sign turned. An undefined one is -infinity.
double MonitorValue(v1::TrainingConfig::Monitor monitor, const BinaryMetrics& metrics);

// "AUC 0.98341  gAUC ...  logloss 0.1632"
std::string MetricsText(const BinaryMetrics& metrics);
// One line per block and layer: entropy as a share of ln K, the lightest and the heaviest expert's load.
std::string UtilisationText(const ModelSpec& spec,
                            const std::vector<v1::ModelFileHeader::BlockUtilisation>& utilisation);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_EVALUATION_H_
