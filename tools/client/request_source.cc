#include "tools/client/request_source.h"

#include <algorithm>
#include <span>

#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "tools/client/request_builder.h"
#include "tools/client/wire_method.h"
#include "tools/common/capture_reader.h"
#include "tools/common/log_reader.h"

namespace hilomoe {

absl::StatusOr<std::vector<v1::ScoreRequest>> RequestsFromLog(const std::string& path, const ModelSpec& spec,
                                                              const std::string& group_by, size_t count) {
  HILOMOE_ASSIGN_OR_RETURN(LogReader reader, LogReader::Open(path));
  RequestBuilder::Options options;
  const std::span<const std::string> header = reader.header();
  if (std::find(header.begin(), header.end(), group_by) != header.end()) options.group_by = group_by;
  HILOMOE_ASSIGN_OR_RETURN(RequestBuilder builder, RequestBuilder::Create(spec, reader, options));
  std::vector<v1::ScoreRequest> requests;
  LogReader::Row row;
  while (true) {
    HILOMOE_ASSIGN_OR_RETURN(const bool more, reader.Next(&row));
    if (!more) break;
    if (builder.BoundaryBefore(row) == RequestBuilder::Boundary::kNone) {
      HILOMOE_RETURN_IF_ERROR(builder.Append(reader, row, &requests.back()));
      continue;
    }
    if (requests.size() == count) break;
    HILOMOE_RETURN_IF_ERROR(builder.Begin(reader, row, &requests.emplace_back()));
  }
  if (requests.empty()) return absl::InvalidArgumentError(absl::StrCat(path, ": no rows"));
  return requests;
}

absl::StatusOr<std::vector<v1::ScoreRequest>> RequestsFromCapture(const std::string& path, size_t count) {
  HILOMOE_ASSIGN_OR_RETURN(CaptureReader reader, CaptureReader::Open(path));
  std::vector<v1::ScoreRequest> requests;
  v1::CapturedRequest captured;
  while (requests.size() < count) {
    HILOMOE_ASSIGN_OR_RETURN(const bool more, reader.Next(&captured));
    if (!more) break;
    if (captured.method() != MethodPath(WireMethod::kScore) &&
        captured.method() != MethodPath(WireMethod::kScoreStream)) {
      continue;
    }
    if (!requests.emplace_back().ParseFromString(captured.request())) requests.pop_back();
  }
  if (requests.empty()) return absl::InvalidArgumentError(absl::StrCat(path, ": no request to ScoringService"));
  return requests;
}

}  // namespace hilomoe
