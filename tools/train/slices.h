// Metrics told apart by the values of a log's columns.
#ifndef HILOMOE_TOOLS_TRAIN_SLICES_H_
#define HILOMOE_TOOLS_TRAIN_SLICES_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace hilomoe {

inline constexpr size_t kSliceValues = 20;  // the largest so many values of a column stand alone, the rest is pooled

// One column of some logs, read one after another; cells as they stand there.
struct SliceColumn {
  std::string name;
  std::vector<std::string> values;  // in the order of their first row
  std::vector<uint32_t> rows;       // per row: which value
};

// NOT_FOUND names log and column when a log lacks one of them; reads headers only.
absl::Status CheckSliceColumns(const std::vector<std::string>& paths, const std::vector<std::string>& names);
absl::StatusOr<std::vector<SliceColumn>> ReadSliceColumns(const std::vector<std::string>& paths,
                                                          const std::vector<std::string>& names);

// What run_log.h says of "slices". label: 0 or 1; group: one per row or empty. INVALID_ARGUMENT when the column and the
// rows differ in number.
absl::StatusOr<nlohmann::ordered_json> SliceJson(const SliceColumn& column, std::span<const float> probability,
                                                 std::span<const uint8_t> label, std::span<const uint64_t> group);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_SLICES_H_
