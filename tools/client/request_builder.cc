#include "tools/client/request_builder.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "tools/common/column_builder.h"

namespace hilomoe {

absl::StatusOr<RequestBuilder> RequestBuilder::Create(const ModelSpec& spec, const LogReader& reader,
                                                      const Options& options) {
  RequestBuilder builder;
  builder.max_candidates_ = std::max<size_t>(options.max_candidates, 1);
  if (!options.group_by.empty()) {
    HILOMOE_ASSIGN_OR_RETURN(const int cell, reader.ColumnIndex(options.group_by));
    builder.group_cell_ = static_cast<size_t>(cell);
  }
  for (const FeatureSpec& feature : spec.features()) {
    const auto found = std::find(reader.header().begin(), reader.header().end(), feature.name);
    if (found == reader.header().end()) {
      if (feature.required) {
        return absl::NotFoundError(absl::StrCat(reader.path(), ": no column '", feature.name,
                                                "', which the model requires; add it to the log"));
      }
      builder.absent_features_.push_back(feature.name);
      continue;
    }
    const size_t cell = static_cast<size_t>(found - reader.header().begin());
    (feature.is_context() ? builder.context_ : builder.candidate_).push_back({feature, cell});
  }
  builder.context_cells_.resize(builder.context_.size());
  return builder;
}

RequestBuilder::Boundary RequestBuilder::BoundaryBefore(LogReader::Row row) const {
  if (rows_ == 0 || !group_cell_.has_value() || row[*group_cell_] != group_) return Boundary::kGroup;
  for (size_t i = 0; i < context_.size(); ++i) {
    if (row[context_[i].cell] != context_cells_[i]) return Boundary::kContext;
  }
  return rows_ < max_candidates_ ? Boundary::kNone : Boundary::kFull;
}

absl::Status RequestBuilder::Begin(const LogReader& reader, LogReader::Row row, v1::ScoreRequest* request) {
  rows_ = 0;
  if (group_cell_.has_value()) group_ = row[*group_cell_];
  request->clear_context();
  request->clear_candidates();
  for (size_t i = 0; i < context_.size(); ++i) {
    const std::string_view cell = row[context_[i].cell];
    context_cells_[i] = cell;
    v1::Column* column = request->add_context();
    column->set_feature_id(context_[i].feature.id);
    HILOMOE_RETURN_IF_ERROR(AppendCell(context_[i].feature, reader, cell, 0, column));
  }
  for (const FeatureColumn& column : candidate_) request->add_candidates()->set_feature_id(column.feature.id);
  return Append(reader, row, request);
}

absl::Status RequestBuilder::Append(const LogReader& reader, LogReader::Row row, v1::ScoreRequest* request) {
  for (size_t i = 0; i < candidate_.size(); ++i) {
    v1::Column* column = request->mutable_candidates(static_cast<int>(i));
    HILOMOE_RETURN_IF_ERROR(AppendCell(candidate_[i].feature, reader, row[candidate_[i].cell], rows_, column));
  }
  request->set_num_candidates(static_cast<uint32_t>(++rows_));
  return absl::OkStatus();
}

}  // namespace hilomoe
