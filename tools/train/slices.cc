#include "tools/train/slices.h"

#include <algorithm>
#include <numeric>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "tools/common/log_reader.h"
#include "tools/common/metrics_json.h"

namespace hilomoe {
namespace {

using Json = nlohmann::ordered_json;

// The rows of one value, or of all that are pooled.
struct Rows {
  std::vector<float> probability;
  std::vector<uint8_t> label;
  std::vector<uint64_t> group;
};

absl::StatusOr<Json> RowsJson(const Rows& rows) {
  HILOMOE_ASSIGN_OR_RETURN(const BinaryMetrics metrics, ComputeMetrics(rows.probability, rows.label, rows.group));
  return Json(MetricsJson(metrics));
}

}  // namespace

absl::Status CheckSliceColumns(const std::vector<std::string>& paths, const std::vector<std::string>& names) {
  for (const std::string& path : paths) {
    HILOMOE_ASSIGN_OR_RETURN(const LogReader reader, LogReader::Open(path));
    for (const std::string& name : names) HILOMOE_RETURN_IF_ERROR(reader.ColumnIndex(name).status());
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<SliceColumn>> ReadSliceColumns(const std::vector<std::string>& paths,
                                                          const std::vector<std::string>& names) {
  std::vector<SliceColumn> columns(names.size());
  std::vector<absl::flat_hash_map<std::string, uint32_t>> known(names.size());
  for (size_t c = 0; c < names.size(); ++c) columns[c].name = names[c];
  if (names.empty()) return columns;
  for (const std::string& path : paths) {
    HILOMOE_ASSIGN_OR_RETURN(LogReader reader, LogReader::Open(path));
    std::vector<size_t> cells;
    for (const std::string& name : names) {
      HILOMOE_ASSIGN_OR_RETURN(const int cell, reader.ColumnIndex(name));
      cells.push_back(static_cast<size_t>(cell));
    }
    LogReader::Row row;
    while (true) {
      HILOMOE_ASSIGN_OR_RETURN(const bool more, reader.Next(&row));
      if (!more) break;
      for (size_t c = 0; c < names.size(); ++c) {
        const std::string_view cell = row[cells[c]];
        auto found = known[c].find(absl::string_view(cell.data(), cell.size()));
        if (found == known[c].end()) {
          found = known[c].emplace(cell, static_cast<uint32_t>(columns[c].values.size())).first;
          columns[c].values.emplace_back(cell);
        }
        columns[c].rows.push_back(found->second);
      }
    }
  }
  return columns;
}

absl::StatusOr<Json> SliceJson(const SliceColumn& column, std::span<const float> probability,
                               std::span<const uint8_t> label, std::span<const uint64_t> group) {
  if (column.rows.size() != probability.size()) {
    return absl::InvalidArgumentError(absl::StrCat("column '", column.name, "' has ", column.rows.size(), " rows, but ",
                                                   probability.size(), " were scored"));
  }
  std::vector<size_t> count(column.values.size());
  for (const uint32_t value : column.rows) ++count[value];
  std::vector<uint32_t> order(count.size());
  std::iota(order.begin(), order.end(), 0U);
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return count[a] > count[b]; });
  const size_t shown = std::min(order.size(), kSliceValues);
  std::vector<size_t> part(count.size(), shown);  // per value; the last is the rest
  for (size_t i = 0; i < shown; ++i) part[order[i]] = i;
  std::vector<Rows> parts(shown + 1);
  for (size_t r = 0; r < probability.size(); ++r) {
    Rows& rows = parts[part[column.rows[r]]];
    rows.probability.push_back(probability[r]);
    rows.label.push_back(label[r]);
    if (!group.empty()) rows.group.push_back(group[r]);
  }
  Json values = Json::array();
  for (size_t i = 0; i < shown; ++i) {
    HILOMOE_ASSIGN_OR_RETURN(Json metrics, RowsJson(parts[i]));
    values.push_back({{"value", column.values[order[i]]}, {"metrics", std::move(metrics)}});
  }
  Json rest;
  if (order.size() > shown) {
    HILOMOE_ASSIGN_OR_RETURN(rest, RowsJson(parts[shown]));
  }
  return Json{{"column", column.name}, {"distinct", order.size()}, {"values", values}, {"rest", rest}};
}

}  // namespace hilomoe
