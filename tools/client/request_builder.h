// Rows of a log -> columns of scoring requests. Knows messages and logs, but no network.
//
// Columns are mapped to the model's features by name; other columns are left alone. A feature whose column the log
// lacks is not sent, so that the server gives it its default. What a cell means, column_builder.h says.
//
// A request is a run of consecutive rows of the same group and with the same context cells, of at most max_candidates
// rows: its scores equal those of one request per row.
//
// Threads: one at a time. Errors: INVALID_ARGUMENT "log.csv:812: column 'price': 'abc' is not a finite number";
// NOT_FOUND for a column that must be there.
#ifndef HILOMOE_TOOLS_CLIENT_REQUEST_BUILDER_H_
#define HILOMOE_TOOLS_CLIENT_REQUEST_BUILDER_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hilomoe/v1/scoring_service.pb.h"
#include "model/model_spec.h"
#include "tools/common/log_reader.h"

namespace hilomoe {

class RequestBuilder {
 public:
  struct Options {
    std::string group_by;  // a column; empty: every row is a request of its own
    size_t max_candidates = 1000;
  };
  // What parts a row from the rows before it.
  enum class Boundary { kNone, kGroup, kContext, kFull };

  static absl::StatusOr<RequestBuilder> Create(const ModelSpec& spec, const LogReader& reader, const Options& options);

  // Between the row and the request begun last; kNone: it may be appended.
  Boundary BoundaryBefore(LogReader::Row row) const;

  // Begin empties the request's columns and makes the reader's latest row its context and its first candidate; Append
  // adds the next candidate. Other fields of the request stay. After an error the request holds nothing of use.
  absl::Status Begin(const LogReader& reader, LogReader::Row row, v1::ScoreRequest* request);
  absl::Status Append(const LogReader& reader, LogReader::Row row, v1::ScoreRequest* request);

  // The model's features that the log has no column for.
  const std::vector<std::string>& absent_features() const { return absent_features_; }

 private:
  struct FeatureColumn {
    FeatureSpec feature;
    size_t cell = 0;
  };

  std::vector<FeatureColumn> context_;
  std::vector<FeatureColumn> candidate_;
  std::vector<std::string> absent_features_;
  std::optional<size_t> group_cell_;
  size_t max_candidates_ = 0;

  // Of the request begun last; rows_ is 0 before the first.
  size_t rows_ = 0;
  std::string group_;
  std::vector<std::string> context_cells_;
};

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_CLIENT_REQUEST_BUILDER_H_
