#include "tools/train/log_chunks.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "tools/common/column_builder.h"

#define XXH_INLINE_ALL
#include "xxhash.h"

namespace hilomoe {

absl::StatusOr<LogChunks> LogChunks::Open(std::vector<std::string> paths, const ModelSpec& spec,
                                          const LogChunksOptions& options) {
  if (paths.empty()) return absl::InvalidArgumentError("no log to read");
  LogChunks chunks(std::move(paths), spec, options);
  HILOMOE_RETURN_IF_ERROR(chunks.OpenLog(0));
  return chunks;
}

absl::Status LogChunks::OpenLog(size_t index) {
  index_ = index;
  HILOMOE_ASSIGN_OR_RETURN(LogReader reader, LogReader::Open(paths_[index]));
  const auto find = [&](const std::string& name, bool needed, int* cell) {
    const absl::StatusOr<int> found = reader.ColumnIndex(name);
    *cell = found.ok() ? *found : -1;
    return found.ok() || !needed ? absl::OkStatus() : found.status();
  };
  HILOMOE_RETURN_IF_ERROR(find(options_.label, options_.all_columns, &label_cell_));
  group_cell_ = weight_cell_ = -1;
  if (!options_.group_by.empty()) {
    HILOMOE_RETURN_IF_ERROR(find(options_.group_by, options_.all_columns, &group_cell_));
  }
  if (!options_.weight.empty()) {
    HILOMOE_RETURN_IF_ERROR(find(options_.weight, options_.all_columns, &weight_cell_));
  }
  cells_.resize(spec_->features().size());
  for (size_t f = 0; f < cells_.size(); ++f) {
    const FeatureSpec& feature = spec_->features()[f];
    HILOMOE_RETURN_IF_ERROR(find(feature.name, options_.all_columns || feature.required, &cells_[f]));
  }
  reader_ = std::move(reader);
  return absl::OkStatus();
}

absl::Status LogChunks::AppendRow(LogReader::Row row, LogChunk* chunk) const {
  if (label_cell_ >= 0) {
    const std::string_view label = row[static_cast<size_t>(label_cell_)];
    if (label != "0" && label != "1") return CellError(*reader_, options_.label, label, "is not a label; 0 or 1 is");
    chunk->labels.push_back(label == "1" ? 1 : 0);
  }
  if (group_cell_ >= 0) {
    const std::string_view group = row[static_cast<size_t>(group_cell_)];
    chunk->groups.push_back(XXH3_64bits(group.data(), group.size()));
  }
  if (weight_cell_ >= 0) {
    const std::string_view cell = row[static_cast<size_t>(weight_cell_)];
    const std::optional<float> weight = ParseFloat(cell);
    if (!weight.has_value() || *weight < 0) {
      return CellError(*reader_, options_.weight, cell, "is not a weight; a finite number >= 0 is");
    }
    chunk->weights.push_back(*weight);
  }
  for (size_t f = 0; f < cells_.size(); ++f) {
    if (cells_[f] < 0) continue;
    HILOMOE_RETURN_IF_ERROR(AppendCell(spec_->features()[f], *reader_, row[static_cast<size_t>(cells_[f])], chunk->rows,
                                       chunk->columns.Mutable(static_cast<int>(f))));
  }
  ++chunk->rows;
  return absl::OkStatus();
}

absl::StatusOr<bool> LogChunks::Next(size_t max_rows, LogChunk* chunk) {
  const int n = static_cast<int>(spec_->features().size());
  while (chunk->columns.size() < n) chunk->columns.Add();
  while (true) {
    chunk->rows = 0;
    chunk->labels.clear();
    chunk->groups.clear();
    chunk->weights.clear();
    for (int f = 0; f < n; ++f) {
      ClearValues(chunk->columns.Mutable(f));
      const size_t i = static_cast<size_t>(f);
      chunk->columns.Mutable(f)->set_feature_id(cells_[i] >= 0 ? spec_->features()[i].id : 0);
    }
    LogReader::Row row;
    while (chunk->rows < max_rows) {
      HILOMOE_ASSIGN_OR_RETURN(const bool more, reader_->Next(&row));
      if (!more) break;
      HILOMOE_RETURN_IF_ERROR(AppendRow(row, chunk));
    }
    chunk->place = absl::StrCat(reader_->path(), ":", reader_->line());
    if (chunk->rows > 0) return true;
    if (index_ + 1 == paths_.size()) return false;
    HILOMOE_RETURN_IF_ERROR(OpenLog(index_ + 1));
  }
}

double LogChunks::fraction() const {
  const int64_t total = reader_->total_bytes();
  const double own = total > 0 ? static_cast<double>(reader_->bytes_read()) / static_cast<double>(total) : 0;
  return (static_cast<double>(index_) + own) / static_cast<double>(paths_.size());
}

}  // namespace hilomoe
