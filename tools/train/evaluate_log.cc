#include "tools/train/evaluate_log.h"

#include <cmath>
#include <cstdio>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "model/checkpoint.h"
#include "model/file_io.h"
#include "model/safetensors.h"
#include "model/status_macros.h"
#include "runtime/cpu_count.h"
#include "tools/common/metrics_json.h"
#include "tools/common/progress_bar.h"
#include "tools/train/evaluation.h"
#include "tools/train/log_encoder.h"
#include "tools/train/network.h"

namespace hilomoe {
namespace {

absl::Status WriteTensors(const std::string& path, const std::vector<float>& scores, const std::vector<float>& gaps,
                          const std::vector<uint8_t>& labels, const std::vector<uint64_t>& groups) {
  const std::vector<int64_t> signed_groups(groups.begin(), groups.end());
  std::vector<SafetensorsEntry> entries = {MakeEntry("scores", "F32", {scores.size()}, absl::MakeConstSpan(scores))};
  const auto add = [&](const char* name, const char* dtype, const auto& values) {
    if (values.size() == scores.size()) {
      entries.push_back(MakeEntry(name, dtype, {values.size()}, absl::MakeConstSpan(values)));
    }
  };
  add("tie_gaps", "F32", gaps);
  add("labels", "U8", labels);
  add("groups", "I64", signed_groups);
  return WriteSafetensors(path, entries);
}

}  // namespace

absl::Status EvaluateLog(const EvaluateOptions& options) {
  constexpr size_t kChunkRows = 4096;
  HILOMOE_ASSIGN_OR_RETURN(const Checkpoint checkpoint, ReadCheckpoint(options.checkpoint));
  HILOMOE_ASSIGN_OR_RETURN(const ModelSpec spec, ModelSpec::Create(checkpoint.config.model()));
  const TensorRegistry registry = TensorRegistry::ForTraining(spec, checkpoint.TableRows(spec));
  const auto tensors = registry.Bind<const float>(spec, checkpoint.weights.data());
  HILOMOE_ASSIGN_OR_RETURN(const LogEncoder encoder,
                           LogEncoder::Create(spec, checkpoint.vocabularies, tensors.features));
  Parallel parallel(options.threads > 0 ? options.threads : UsableCpuCount());
  Network<float> network(spec, registry, parallel);

  const v1::Data& data = checkpoint.config.data();
  HILOMOE_ASSIGN_OR_RETURN(
      LogChunks log,
      LogChunks::Open(options.logs, spec, {.label = data.label(), .group_by = data.group_by(), .all_columns = false}));
  std::optional<AtomicFile> output;
  const bool tensors_file = absl::EndsWith(options.output, ".safetensors");
  if (!options.output.empty() && !tensors_file) {
    HILOMOE_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(options.output));
    output.emplace(std::move(file));
    HILOMOE_RETURN_IF_ERROR(output->Append(options.tie_gaps ? "score,tie_gap\n" : "score\n"));
  }
  std::vector<float> scores, logits, gaps, all_gaps;
  std::vector<uint8_t> labels;
  std::vector<uint64_t> groups;
  LogChunk chunk;
  EncodedBatch batch;
  ProgressBar progress({.label = "evaluate"});
  std::string text, log_without_labels;
  while (true) {
    HILOMOE_ASSIGN_OR_RETURN(const bool more, log.Next(kChunkRows, &chunk));
    if (!more) break;
    HILOMOE_RETURN_IF_ERROR(encoder.Encode(chunk, &batch));
    logits.resize(chunk.rows);
    gaps.resize(chunk.rows);
    network.Forward(tensors, batch, {}, absl::MakeSpan(logits), gaps.data());
    text.clear();
    for (size_t r = 0; r < chunk.rows; ++r) {
      scores.push_back(Sigmoid(logits[r]));
      absl::StrAppendFormat(&text, "%.9g", scores.back());
      if (options.tie_gaps) absl::StrAppendFormat(&text, ",%.6g", gaps[r]);
      text.push_back('\n');
    }
    if (output.has_value()) HILOMOE_RETURN_IF_ERROR(output->Append(text));
    if (tensors_file && options.tie_gaps) all_gaps.insert(all_gaps.end(), gaps.begin(), gaps.end());
    if (chunk.labels.empty() && log_without_labels.empty()) log_without_labels = log.path();
    labels.insert(labels.end(), chunk.labels.begin(), chunk.labels.end());
    groups.insert(groups.end(), chunk.groups.begin(), chunk.groups.end());
    progress.UpdateFraction(log.fraction(), static_cast<int64_t>(scores.size()));
  }
  progress.Finish();
  if (output.has_value()) HILOMOE_RETURN_IF_ERROR(output->Commit());
  if (tensors_file) HILOMOE_RETURN_IF_ERROR(WriteTensors(options.output, scores, all_gaps, labels, groups));
  if (labels.size() != scores.size() && !options.report.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("'", options.report, "' is not written, for there are no metrics: '",
                                                   log_without_labels, "' has no column '", data.label(), "'"));
  }
  if (labels.size() != scores.size() || scores.empty()) return absl::OkStatus();
  if (groups.size() != scores.size()) groups.clear();
  HILOMOE_ASSIGN_OR_RETURN(const BinaryMetrics metrics, ComputeMetrics(scores, labels, groups));
  std::printf("%zu rows  %s\n", scores.size(), MetricsText(metrics).c_str());
  if (options.report.empty()) return absl::OkStatus();
  return WriteFile(options.report, MetricsJson(metrics).dump(2) + "\n");
}

}  // namespace hilomoe
