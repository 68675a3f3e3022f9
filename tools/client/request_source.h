// Where a load's set of requests comes from, if not from chance: a log, or what a server has captured.
#ifndef HILOMOE_TOOLS_CLIENT_REQUEST_SOURCE_H_
#define HILOMOE_TOOLS_CLIENT_REQUEST_SOURCE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "hilomoe/v1/scoring_service.pb.h"
#include "model/model_spec.h"

namespace hilomoe {

// The first `count` requests of a log, grouped as hilomoe-client score groups them.
absl::StatusOr<std::vector<v1::ScoreRequest>> RequestsFromLog(const std::string& path, const ModelSpec& spec,
                                                              const std::string& group_by, size_t count);

// The first `count` requests of a capture file that were sent to ScoringService and can be read; those of other
// services and damaged ones are passed over. INVALID_ARGUMENT when there is none.
absl::StatusOr<std::vector<v1::ScoreRequest>> RequestsFromCapture(const std::string& path, size_t count);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_CLIENT_REQUEST_SOURCE_H_
