#include "tools/common/column_builder.h"

#include <algorithm>
#include <optional>

#include "model/status_macros.h"

namespace hilomoe {
namespace {

constexpr char kIdSeparator = '^';

absl::Status AppendValue(const FeatureSpec& feature, const LogReader& reader, std::string_view value,
                         v1::Column* column) {
  if (feature.is_numeric()) {
    const std::optional<float> number = ParseFloat(value);
    if (!number.has_value()) return CellError(reader, feature.name, value, "is not a finite number");
    column->add_numbers(*number);
  } else if (feature.id_type == v1::Feature::INT64) {
    const std::optional<int64_t> id = ParseInt64(value);
    if (!id.has_value()) return CellError(reader, feature.name, value, "is not an INT64 id");
    column->add_ids(*id);
  } else {
    column->mutable_strings()->append(value);
    column->add_string_bytes(static_cast<uint32_t>(value.size()));
  }
  return absl::OkStatus();
}

// Lengths are spelled out from the first row on that has not exactly one value.
void AppendLength(uint32_t length, size_t rows_before, v1::Column* column) {
  if (column->row_lengths().empty()) {
    if (length == 1) return;
    column->mutable_row_lengths()->Resize(static_cast<int>(rows_before), 1);
  }
  column->add_row_lengths(length);
}

}  // namespace

absl::Status AppendCell(const FeatureSpec& feature, const LogReader& reader, std::string_view cell, size_t rows_before,
                        v1::Column* column) {
  uint32_t length = 0;
  // "a^" has a second, empty position, which only an aligned sequence keeps.
  for (bool more = !cell.empty(); more;) {
    const size_t at = feature.is_pooled() ? cell.find(kIdSeparator) : std::string_view::npos;
    const std::string_view value = cell.substr(0, at);
    more = at != std::string_view::npos;
    if (more) cell.remove_prefix(at + 1);
    if (value.empty() && !feature.aligned) continue;
    HILOMOE_RETURN_IF_ERROR(AppendValue(feature, reader, value, column));
    ++length;
  }
  AppendLength(length, rows_before, column);
  return absl::OkStatus();
}

void AppendRow(const v1::Column& from, size_t row, size_t rows_before, v1::Column* to) {
  const bool lengths = !from.row_lengths().empty();
  size_t begin = lengths ? 0 : row;
  for (size_t r = 0; lengths && r < row; ++r) begin += from.row_lengths(static_cast<int>(r));
  const uint32_t length = lengths ? from.row_lengths(static_cast<int>(row)) : 1;
  size_t text = 0;
  for (size_t i = 0; i < begin && !from.string_bytes().empty(); ++i) text += from.string_bytes(static_cast<int>(i));
  for (size_t i = begin; i < begin + length; ++i) {
    const int at = static_cast<int>(i);
    if (!from.ids().empty()) to->add_ids(from.ids(at));
    if (!from.numbers().empty()) to->add_numbers(from.numbers(at));
    if (!from.string_bytes().empty()) {
      to->mutable_strings()->append(from.strings(), text, from.string_bytes(at));
      to->add_string_bytes(from.string_bytes(at));
      text += from.string_bytes(at);
    }
  }
  AppendLength(length, rows_before, to);
}

void ClearValues(v1::Column* column) {
  column->clear_ids();
  column->mutable_strings()->clear();
  column->clear_string_bytes();
  column->clear_numbers();
  column->clear_row_lengths();
}

}  // namespace hilomoe
