#include "tools/convert/labelled_log.h"

#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "tools/train/log_chunks.h"
#include "tools/train/log_encoder.h"

namespace hilomoe {

absl::StatusOr<BinaryMetrics> EvaluateLabelledLog(const Predictor& predictor, const Checkpoint& checkpoint,
                                                  const std::string& log) {
  constexpr size_t kChunkRows = 4096;
  const ModelSpec& spec = predictor.file().spec();
  const v1::Data& data = checkpoint.config.data();
  HILOMOE_ASSIGN_OR_RETURN(const LogEncoder encoder,
                           LogEncoder::Create(spec, checkpoint.vocabularies, predictor.file().tensors().features));
  HILOMOE_ASSIGN_OR_RETURN(
      LogChunks chunks,
      LogChunks::Open({log}, spec, {.label = data.label(), .group_by = data.group_by(), .all_columns = false}));
  Workspace workspace(predictor);
  LogChunk chunk;
  EncodedBatch batch;
  std::vector<float> scores, logits;
  std::vector<uint8_t> labels;
  std::vector<uint64_t> groups;
  while (true) {
    HILOMOE_ASSIGN_OR_RETURN(const bool more, chunks.Next(kChunkRows, &chunk));
    if (!more) break;
    if (chunk.labels.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("'", log, "' has no column '", data.label(), "'"));
    }
    HILOMOE_RETURN_IF_ERROR(encoder.Encode(chunk, &batch));
    logits.resize(chunk.rows);
    predictor.Evaluate(batch, &workspace, absl::MakeSpan(logits));
    for (const float logit : logits) {
      scores.push_back(static_cast<float>(1 / (1 + std::exp(-static_cast<double>(logit)))));
    }
    labels.insert(labels.end(), chunk.labels.begin(), chunk.labels.end());
    groups.insert(groups.end(), chunk.groups.begin(), chunk.groups.end());
  }
  if (scores.empty()) return absl::InvalidArgumentError(absl::StrCat("'", log, "' has no rows"));
  if (groups.size() != scores.size()) groups.clear();
  return ComputeMetrics(scores, labels, groups);
}

}  // namespace hilomoe
