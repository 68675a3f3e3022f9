// Logs as chunks of columns, for building vocabularies, encoding and scoring.
#ifndef HILOMOE_TOOLS_TRAIN_LOG_CHUNKS_H_
#define HILOMOE_TOOLS_TRAIN_LOG_CHUNKS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/repeated_field.h"
#include "hilomoe/v1/column.pb.h"
#include "model/model_spec.h"
#include "tools/common/log_reader.h"

namespace hilomoe {

// `rows` flat rows: one column per feature of the spec, in its order; features that the log lacks have no values and
// feature_id 0.
struct LogChunk {
  size_t rows = 0;
  google::protobuf::RepeatedPtrField<v1::Column> columns;
  std::vector<float> labels;     // empty when the log has no label column
  std::vector<uint64_t> groups;  // a hash of the group's cell; empty without group_by
  std::vector<float> weights;    // finite, >= 0; empty without a weight column
  std::string place;             // of its last row: "path:line"
};

struct LogChunksOptions {
  std::string label;
  std::string group_by = {};  // empty: no groups
  std::string weight = {};    // empty: no weights
  bool all_columns = true;    // all of these and every feature must be there; else only required features
};

// Reads several logs one after another. One thread.
class LogChunks {
 public:
  // `spec` must outlive it. Opens the first log.
  static absl::StatusOr<LogChunks> Open(std::vector<std::string> paths, const ModelSpec& spec,
                                        const LogChunksOptions& options);

  // Up to max_rows rows; false at the end. Rows of two logs never share a chunk. Errors name path, line and column:
  // a label other than 0 or 1, a weight that is none, a cell that is not of its feature's type.
  absl::StatusOr<bool> Next(size_t max_rows, LogChunk* chunk);

  // The log of the latest row.
  const std::string& path() const { return reader_->path(); }
  // Of all logs, by their sizes; 0 where unknown.
  double fraction() const;

 private:
  LogChunks(std::vector<std::string> paths, const ModelSpec& spec, LogChunksOptions options)
      : paths_(std::move(paths)), spec_(&spec), options_(std::move(options)) {}
  absl::Status OpenLog(size_t index);
  absl::Status AppendRow(LogReader::Row row, LogChunk* chunk) const;

  std::vector<std::string> paths_;
  const ModelSpec* spec_;
  LogChunksOptions options_;
  size_t index_ = 0;
  std::optional<LogReader> reader_;
  std::vector<int> cells_;  // per feature: its column, -1 when absent
  int label_cell_ = -1;
  int group_cell_ = -1;
  int weight_cell_ = -1;
};

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_LOG_CHUNKS_H_
