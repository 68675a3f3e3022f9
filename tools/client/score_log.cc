#include "tools/client/score_log.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "model/file_io.h"
#include "model/model_spec.h"
#include "model/status_macros.h"
#include "tools/client/request_builder.h"
#include "tools/client/score_writer.h"
#include "tools/common/log_reader.h"
#include "tools/common/progress_bar.h"
#include "xxhash.h"

namespace hilomoe {
namespace {

constexpr uint8_t kNoLabel = 2;

// What is kept of a request's rows until their scores are there.
struct PendingRows {
  int64_t first_row = 0;
  int64_t first_line = 0;
  int64_t last_line = 0;
  uint64_t group = 0;
  std::vector<uint8_t> labels;   // 0, 1 or kNoLabel
  std::string kept;              // the kept cells of all rows
  std::vector<size_t> kept_end;  // of each row

  int64_t rows() const { return static_cast<int64_t>(labels.size()); }
};

struct LabelledScores {
  std::vector<float> scores;
  std::vector<uint8_t> labels;
  std::vector<uint64_t> groups;  // empty without groups
};

std::optional<size_t> OptionalColumn(const LogReader& reader, const std::string& name) {
  if (name.empty()) return std::nullopt;  // also a header's cell may be empty
  const auto found = std::find(reader.header().begin(), reader.header().end(), name);
  if (found == reader.header().end()) return std::nullopt;
  return static_cast<size_t>(found - reader.header().begin());
}

// One run over one log.
class LogScorer {
 public:
  LogScorer(const ScoreLogOptions& options, LogReader reader) : options_(options), reader_(std::move(reader)) {}

  absl::StatusOr<ScoreReport> Run(std::FILE* progress);

 private:
  absl::Status Start();
  absl::Status ResolveColumns(const v1::GetModelResponse& model);
  absl::Status ScoreRows(ProgressBar* bar);
  absl::Status AddRow(LogReader::Row row);
  absl::Status SendPending();
  absl::Status Consume(const ScorePipeline::Exchange& exchange);
  absl::Status RequestError(const ScorePipeline::Exchange& exchange, const absl::Status& status) const;
  absl::Status Finish();

  const ScoreLogOptions& options_;
  LogReader reader_;
  std::optional<RequestBuilder> builder_;
  std::optional<size_t> label_cell_;
  std::optional<size_t> group_cell_;
  std::string label_;
  std::vector<size_t> kept_cells_;
  std::unique_ptr<ScoreWriter> writer_;
  std::optional<AtomicFile> report_file_;

  std::vector<PendingRows> pending_;  // by the exchange's slot
  LabelledScores labelled_;
  ScoreReport report_;
  std::unique_ptr<ScorePipeline> pipeline_;
};

absl::StatusOr<ScoreReport> LogScorer::Run(std::FILE* progress) {
  HILOMOE_RETURN_IF_ERROR(Start());
  const auto start = std::chrono::steady_clock::now();
  {
    std::optional<ProgressBar> bar;
    if (progress != nullptr) {
      ProgressBar::Options options;
      options.label = "score";
      options.out = progress;
      bar.emplace(std::move(options));
    }
    HILOMOE_RETURN_IF_ERROR(ScoreRows(bar.has_value() ? &*bar : nullptr));
  }
  report_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  HILOMOE_RETURN_IF_ERROR(Finish());
  return std::move(report_);
}

absl::Status LogScorer::Start() {
  // What can be wrong without a server is found first.
  for (const std::string& column : options_.keep_columns) {
    HILOMOE_ASSIGN_OR_RETURN(const int cell, reader_.ColumnIndex(column));
    kept_cells_.push_back(static_cast<size_t>(cell));
  }
  HILOMOE_ASSIGN_OR_RETURN(writer_, ScoreWriter::Create(options_.output, options_.keep_columns));
  if (!options_.report.empty()) {
    HILOMOE_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(options_.report));
    report_file_.emplace(std::move(file));
  }
  HILOMOE_ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel, Connect(options_.server));
  HILOMOE_ASSIGN_OR_RETURN(const v1::GetModelResponse model, FetchModel(channel, options_.server));
  report_.model = model.model();
  HILOMOE_RETURN_IF_ERROR(ResolveColumns(model));
  pipeline_ = std::make_unique<ScorePipeline>(channel, options_.pipeline);
  pending_.resize(std::max<size_t>(options_.pipeline.max_in_flight, 1));
  return absl::OkStatus();
}

absl::Status LogScorer::ResolveColumns(const v1::GetModelResponse& model) {
  const absl::StatusOr<ModelSpec> spec = ModelSpec::Create(model.config());
  if (!spec.ok()) {
    return absl::FailedPreconditionError(absl::StrCat("cannot read the config of model '", model.model(), "' version ",
                                                      model.version(), ", is the client too old for it? ",
                                                      spec.status().message()));
  }
  if (!options_.group_by.empty()) {
    HILOMOE_ASSIGN_OR_RETURN(const int cell, reader_.ColumnIndex(options_.group_by));
    group_cell_ = static_cast<size_t>(cell);
  } else {
    group_cell_ = OptionalColumn(reader_, model.group_by());
  }
  if (options_.metrics) {
    label_ = model.label();
    label_cell_ = OptionalColumn(reader_, label_);
  }
  RequestBuilder::Options builder_options;
  builder_options.max_candidates = options_.max_candidates;
  if (group_cell_.has_value() && !options_.flat) builder_options.group_by = reader_.header()[*group_cell_];
  HILOMOE_ASSIGN_OR_RETURN(builder_, RequestBuilder::Create(*spec, reader_, builder_options));
  report_.absent_features = builder_->absent_features();
  return absl::OkStatus();
}

absl::Status LogScorer::ScoreRows(ProgressBar* bar) {
  LogReader::Row row;
  bool open = false;  // a request has been begun and not been sent
  while (true) {
    HILOMOE_ASSIGN_OR_RETURN(const bool more, reader_.Next(&row));
    if (!more) break;
    const RequestBuilder::Boundary boundary = builder_->BoundaryBefore(row);
    if (boundary == RequestBuilder::Boundary::kContext) ++report_.context_splits;
    if (open && boundary != RequestBuilder::Boundary::kNone) {
      HILOMOE_RETURN_IF_ERROR(SendPending());
      open = false;
      if (bar != nullptr) {
        const int64_t total = reader_.total_bytes();
        const double read = static_cast<double>(reader_.bytes_read());
        bar->UpdateFraction(total > 0 ? read / static_cast<double>(total) : -1, report_.rows);
      }
    }
    ScorePipeline::Exchange* const exchange = pipeline_->Next();
    if (open) {
      HILOMOE_RETURN_IF_ERROR(builder_->Append(reader_, row, &exchange->request));
    } else {
      HILOMOE_RETURN_IF_ERROR(builder_->Begin(reader_, row, &exchange->request));
      exchange->request.set_model(options_.server.model);
      exchange->request.set_version(options_.server.version);
    }
    HILOMOE_RETURN_IF_ERROR(AddRow(row));
    open = true;
  }
  if (open) HILOMOE_RETURN_IF_ERROR(SendPending());
  while (const ScorePipeline::Exchange* exchange = pipeline_->Await()) HILOMOE_RETURN_IF_ERROR(Consume(*exchange));
  if (bar != nullptr) {
    bar->UpdateFraction(1, report_.rows);
    bar->Finish();
  }
  return absl::OkStatus();
}

// Keeps what the output and the metrics need of the reader's latest row.
absl::Status LogScorer::AddRow(LogReader::Row row) {
  PendingRows& pending = pending_[pipeline_->Next()->slot];
  if (pending.labels.empty()) {
    pending.first_row = reader_.row();
    pending.first_line = reader_.line();
    if (group_cell_.has_value()) pending.group = XXH3_64bits(row[*group_cell_].data(), row[*group_cell_].size());
  }
  pending.last_line = reader_.line();
  uint8_t label = kNoLabel;
  if (label_cell_.has_value() && !row[*label_cell_].empty()) {
    const std::optional<float> value = ParseFloat(row[*label_cell_]);
    if (value != 0.0f && value != 1.0f) {
      return CellError(reader_, label_, row[*label_cell_], "is not a label: 0, 1 or empty; --nometrics ignores it");
    }
    label = *value == 1.0f ? 1 : 0;
  }
  pending.labels.push_back(label);
  for (const size_t cell : kept_cells_) ScoreWriter::AppendCell(row[cell], &pending.kept);
  pending.kept_end.push_back(pending.kept.size());
  return absl::OkStatus();
}

absl::Status LogScorer::SendPending() {
  pipeline_->Send();
  while (const ScorePipeline::Exchange* exchange = pipeline_->Full() ? pipeline_->Await() : pipeline_->Poll()) {
    HILOMOE_RETURN_IF_ERROR(Consume(*exchange));
  }
  return absl::OkStatus();
}

absl::Status LogScorer::Consume(const ScorePipeline::Exchange& exchange) {
  if (!exchange.status.ok()) return RequestError(exchange, exchange.status);
  PendingRows& pending = pending_[exchange.slot];
  const int64_t rows = pending.rows();
  if (exchange.response.scores_size() != rows) {
    return RequestError(exchange, absl::InternalError(absl::StrCat("the answer has ", exchange.response.scores_size(),
                                                                   " scores for ", rows, " candidates")));
  }
  size_t kept_begin = 0;
  for (int64_t i = 0; i < rows; ++i) {
    const float score = exchange.response.scores(static_cast<int>(i));
    if (!(score >= 0 && score <= 1)) {
      return RequestError(exchange, absl::InternalError(absl::StrFormat("the answer's score %g is no probability",
                                                                        static_cast<double>(score))));
    }
    const size_t at = static_cast<size_t>(i);
    HILOMOE_RETURN_IF_ERROR(
        writer_->Append(std::string_view(pending.kept).substr(kept_begin, pending.kept_end[at] - kept_begin), score));
    kept_begin = pending.kept_end[at];
    if (pending.labels[at] == kNoLabel) continue;
    labelled_.scores.push_back(score);
    labelled_.labels.push_back(pending.labels[at]);
    if (group_cell_.has_value()) labelled_.groups.push_back(pending.group);
  }
  report_.rows += rows;
  report_.rows_by_version[exchange.response.version()] += rows;
  ++report_.requests;
  report_.retries += exchange.attempts - 1;
  report_.latency.Add(static_cast<uint64_t>(exchange.latency.count()));
  pending.labels.clear();
  pending.kept.clear();
  pending.kept_end.clear();
  return absl::OkStatus();
}

absl::Status LogScorer::RequestError(const ScorePipeline::Exchange& exchange, const absl::Status& status) const {
  const PendingRows& pending = pending_[exchange.slot];
  std::string message = absl::StrCat(reader_.path(), ":", pending.first_line);
  if (pending.rows() == 1) {
    absl::StrAppend(&message, ": row ", pending.first_row);
  } else {
    absl::StrAppend(&message, "-", pending.last_line, ": rows ", pending.first_row, " to ",
                    pending.first_row + pending.rows() - 1);
  }
  absl::StrAppend(&message, ": ", absl::StatusCodeToString(status.code()), " from ", options_.server.address);
  if (exchange.attempts > 1) absl::StrAppend(&message, " after ", exchange.attempts, " attempts");
  return absl::Status(status.code(), absl::StrCat(message, ": ", status.message()));
}

absl::Status LogScorer::Finish() {
  if (label_cell_.has_value()) {
    HILOMOE_ASSIGN_OR_RETURN(report_.metrics, ComputeMetrics(labelled_.scores, labelled_.labels, labelled_.groups));
  }
  HILOMOE_RETURN_IF_ERROR(writer_->Commit());
  if (!report_file_.has_value()) return absl::OkStatus();
  HILOMOE_RETURN_IF_ERROR(report_file_->Append(report_.ToJson()));
  return report_file_->Commit();
}

}  // namespace

absl::StatusOr<ScoreReport> ScoreLog(const ScoreLogOptions& options, std::FILE* progress) {
  HILOMOE_ASSIGN_OR_RETURN(LogReader reader, LogReader::Open(options.input == "-" ? "/dev/stdin" : options.input));
  return LogScorer(options, std::move(reader)).Run(progress);
}

}  // namespace hilomoe
