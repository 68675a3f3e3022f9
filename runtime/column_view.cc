#include "runtime/column_view.h"

namespace hilomoe {

void AppendColumnViews(const google::protobuf::RepeatedPtrField<v1::Column>& columns, std::vector<ColumnView>* views) {
  for (const v1::Column& column : columns) {
    ColumnView& view = views->emplace_back();
    view.feature_id = column.feature_id();
    view.feature = column.feature();
    view.ids = absl::MakeConstSpan(column.ids().data(), column.ids_size());
    view.strings = column.strings();
    view.string_bytes = absl::MakeConstSpan(column.string_bytes().data(), column.string_bytes_size());
    view.numbers = absl::MakeConstSpan(column.numbers().data(), column.numbers_size());
    view.row_lengths = absl::MakeConstSpan(column.row_lengths().data(), column.row_lengths_size());
  }
}

}  // namespace hilomoe
