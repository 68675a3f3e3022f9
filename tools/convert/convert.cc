#include "tools/convert/convert.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "model/checkpoint.h"
#include "model/file_io.h"
#include "model/model_file.h"
#include "model/status_macros.h"
#include "runtime/column_view.h"
#include "runtime/predictor.h"
#include "tools/convert/fold.h"
#include "tools/convert/golden.h"
#include "tools/convert/labelled_log.h"

namespace hilomoe {
namespace {

void FillHeader(const Checkpoint& checkpoint, v1::ModelFileHeader* header) {
  *header->mutable_config() = checkpoint.config.model();
  auto* provenance = header->mutable_provenance();
  provenance->set_created(absl::FormatTime(absl::RFC3339_sec, absl::Now(), absl::UTCTimeZone()));
  provenance->set_created_by("hilomoe-convert " HILOMOE_VERSION);
  provenance->set_label(checkpoint.config.data().label());
  provenance->set_group_by(checkpoint.config.data().group_by());
  for (const auto& [name, value] : checkpoint.metrics) (*provenance->mutable_metrics())[name] = value;
  for (const auto& block : checkpoint.utilisation) *header->add_utilisation() = block;
}

// The largest distance of a served golden score from its reference.
absl::StatusOr<double> MeasureDeviation(const Predictor& predictor) {
  double deviation = 0;
  Workspace workspace(predictor);
  std::vector<ColumnView> context, candidates;
  std::vector<float> scores;
  for (const v1::GoldenRequest& golden : predictor.file().header().golden()) {
    context.clear();
    candidates.clear();
    AppendColumnViews(golden.context(), &context);
    AppendColumnViews(golden.candidates(), &candidates);
    scores.resize(golden.num_candidates());
    HILOMOE_RETURN_IF_ERROR(
        predictor.Predict({golden.num_candidates(), context, candidates}, &workspace, absl::MakeSpan(scores)));
    for (size_t r = 0; r < scores.size(); ++r) {
      const double distance = std::fabs(scores[r] - golden.scores(static_cast<int>(r)));
      if (!(distance <= deviation)) deviation = distance;  // NaN, too
    }
  }
  return deviation;
}

void AddSizes(const ModelFile& file, ConvertReport* report) {
  report->file_bytes = file.bytes();
  for (const auto& tensor : file.header().tensors()) {
    uint64_t& bytes = absl::StartsWith(tensor.name(), "embedding.")    ? report->embedding_bytes
                      : absl::StartsWith(tensor.name(), "vocabulary.") ? report->vocabulary_bytes
                                                                       : report->dense_bytes;
    bytes += tensor.bytes();
  }
}

absl::StatusOr<std::unique_ptr<Predictor>> OpenModel(const std::string& path) {
  HILOMOE_ASSIGN_OR_RETURN(ModelFile file, ModelFile::Open(path));
  return Predictor::Create(std::move(file));
}

// Opens the file as the server will, and holds it to its golden rows.
absl::StatusOr<ConvertReport> Verify(const std::string& path, const std::string& log, const Checkpoint& checkpoint) {
  ConvertReport report;
  HILOMOE_ASSIGN_OR_RETURN(const std::unique_ptr<Predictor> predictor, OpenModel(path));
  AddSizes(predictor->file(), &report);
  report.flops = CountFlops(predictor->file().spec());
  report.tolerance = predictor->file().header().golden_tolerance();
  report.instruction_set = predictor->kernels().name;
  HILOMOE_ASSIGN_OR_RETURN(report.deviation, MeasureDeviation(*predictor));
  HILOMOE_RETURN_IF_ERROR(predictor->CheckGolden());
  if (log.empty()) return report;
  HILOMOE_ASSIGN_OR_RETURN(report.quality.emplace().written, EvaluateLabelledLog(*predictor, checkpoint, log));
  return report;
}

// `path`: a name for the file, which is gone afterwards.
absl::StatusOr<BinaryMetrics> EvaluateInFloat32(const std::string& path, ModelFileContents* contents,
                                                const std::string& log, const Checkpoint& checkpoint) {
  contents->precision = {};
  HILOMOE_RETURN_IF_ERROR(WriteModelFile(path, *contents));
  absl::StatusOr<std::unique_ptr<Predictor>> predictor = OpenModel(path);
  ::unlink(path.c_str());
  if (!predictor.ok()) return predictor.status();
  return EvaluateLabelledLog(**predictor, checkpoint, log);
}

std::string QualityText(const char* name, std::optional<double> written, std::optional<double> float32) {
  if (!written.has_value()) return "";
  std::string text = absl::StrFormat("  %s %.5f", name, *written);
  if (float32.has_value()) absl::StrAppendFormat(&text, " (float32 %.5f, %+.5f)", *float32, *written - *float32);
  return text;
}

}  // namespace

absl::StatusOr<ConvertReport> Convert(const ConvertOptions& options) {
  std::error_code error;
  // The verified file is renamed to its name, which would replace a device or a directory that stands there.
  if (std::filesystem::exists(options.output, error) && !std::filesystem::is_regular_file(options.output, error)) {
    return absl::InvalidArgumentError(absl::StrCat("'", options.output, "' is there and is no regular file"));
  }
  HILOMOE_ASSIGN_OR_RETURN(const Checkpoint checkpoint, ReadCheckpoint(options.checkpoint));
  ModelFileContents contents;
  FillHeader(checkpoint, &contents.header);
  HILOMOE_ASSIGN_OR_RETURN(const ModelSpec spec, ModelSpec::Create(contents.header.config()));
  contents.table_rows = checkpoint.TableRows(spec);
  contents.vocabularies = checkpoint.vocabularies;

  const TensorRegistry training = TensorRegistry::ForTraining(spec, contents.table_rows);
  const TensorRegistry serving = TensorRegistry::ForServing(spec, contents.table_rows);
  if (const auto bad =
          std::find_if(checkpoint.weights.begin(), checkpoint.weights.end(), [](float w) { return !std::isfinite(w); });
      bad != checkpoint.weights.end()) {
    return absl::InvalidArgumentError(absl::StrCat("'", options.checkpoint, "' holds a weight that is not finite"));
  }
  const std::vector<std::vector<float>> tensors = FoldTensors(spec, training, serving, checkpoint.weights);
  for (const std::vector<float>& tensor : tensors) contents.tensors.emplace_back(tensor);

  std::vector<VocabularyTable> tables(spec.tables().size());
  std::vector<Vocabulary> vocabularies;
  for (size_t i = 0; i < tables.size(); ++i) {
    if (!spec.tables()[i].has_vocabulary()) {
      vocabularies.push_back(Vocabulary::Hashed(spec.tables()[i].hash_buckets));
      continue;
    }
    HILOMOE_ASSIGN_OR_RETURN(tables[i], BuildVocabularyTable(contents.vocabularies[i]));
    HILOMOE_ASSIGN_OR_RETURN(
        const Vocabulary vocabulary,
        Vocabulary::FromBuckets(tables[i].buckets, tables[i].seed, tables[i].max_probes, contents.table_rows[i]));
    vocabularies.push_back(vocabulary);
  }
  const auto numeric = training.Bind<const float>(spec, checkpoint.weights.data()).features;
  const RequestEncoder encoder(spec, vocabularies, numeric);
  HILOMOE_ASSIGN_OR_RETURN(Golden golden, MakeGolden(spec, checkpoint, encoder));
  for (v1::GoldenRequest& request : golden.requests) *contents.header.add_golden() = std::move(request);
  contents.header.set_golden_tolerance(IsFloat32(options.precision) ? golden.tolerance : kRoundedTolerance);

  // Not under its name before it is verified. What is in the directory goes with it, and with RemoveLeftovers when this
  // process is killed.
  RemoveLeftovers(options.output);
  HILOMOE_ASSIGN_OR_RETURN(const AtomicDirectory staging, AtomicDirectory::Create(options.output));
  const std::string staged = staging.staging_path() + "/model.hilomoe";
  contents.precision = options.precision;
  HILOMOE_RETURN_IF_ERROR(WriteModelFile(staged, contents));
  HILOMOE_ASSIGN_OR_RETURN(ConvertReport report, Verify(staged, options.log, checkpoint));
  if (report.quality.has_value() && !IsFloat32(options.precision)) {
    HILOMOE_ASSIGN_OR_RETURN(report.quality->float32,
                             EvaluateInFloat32(staged + ".float32", &contents, options.log, checkpoint));
  }
  if (::rename(staged.c_str(), options.output.c_str()) != 0) {
    return SystemError(errno, "cannot rename to", options.output);
  }
  report.precision = options.precision;
  report.golden_rows = golden.rows;
  report.skipped_rows = golden.skipped;
  return report;
}

std::string ReportText(const ConvertReport& report) {
  const auto mib = [](uint64_t bytes) { return absl::StrFormat("%.2f MiB", static_cast<double>(bytes) / (1 << 20)); };
  std::string text = absl::StrCat("size: ", mib(report.file_bytes), " (embeddings ", mib(report.embedding_bytes),
                                  ", vocabularies ", mib(report.vocabulary_bytes), ", dense ", mib(report.dense_bytes),
                                  ")\nFLOPs: ", FlopsText(report.flops), "\n");
  if (!IsFloat32(report.precision)) {
    absl::StrAppend(&text, "precision: embeddings ", PrecisionName(report.precision.embeddings), ", dense ",
                    PrecisionName(report.precision.dense), ", experts ", PrecisionName(report.precision.experts), "\n");
  }
  absl::StrAppend(&text, "golden rows: ", report.golden_rows, " (", report.skipped_rows,
                  " left out, too close to a top-k tie); largest deviation from the reference ",
                  absl::StrFormat("%.2e, bound %.2e, with %s kernels\n", report.deviation, report.tolerance,
                                  report.instruction_set));
  if (!report.quality.has_value()) return text;
  const auto& [written, float32] = *report.quality;
  using Value = std::optional<double>;
  absl::StrAppend(&text, "labelled log, ", written.rows,
                  " rows:", QualityText("AUC", written.auc, float32 ? float32->auc : Value()),
                  QualityText("gAUC", written.grouped.gauc, float32 ? float32->grouped.gauc : Value()),
                  QualityText("logloss", written.logloss, float32 ? float32->logloss : Value()), "\n");
  return text;
}

}  // namespace hilomoe
