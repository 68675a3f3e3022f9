// A scoring request as spans over someone else's memory: what the wire adapters, the trainer's log reader and the
// golden rows all become before they are encoded.
#ifndef HILOMOE_RUNTIME_REQUEST_VIEW_H_
#define HILOMOE_RUNTIME_REQUEST_VIEW_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "absl/types/span.h"

namespace hilomoe {

// The values of one feature for n rows; semantics as message Column of column.proto. Views must outlive the call they
// are passed to.
struct ColumnView {
  uint32_t feature_id = 0;  // 0: see `feature`
  std::string_view feature;
  absl::Span<const int64_t> ids;
  std::string_view strings;  // all values, one after another
  absl::Span<const uint32_t> string_bytes;
  absl::Span<const float> numbers;
  absl::Span<const uint32_t> row_lengths;
};

struct RequestView {
  size_t num_candidates = 0;
  absl::Span<const ColumnView> context;     // one row each
  absl::Span<const ColumnView> candidates;  // num_candidates rows each
};

}  // namespace hilomoe

#endif  // HILOMOE_RUNTIME_REQUEST_VIEW_H_
