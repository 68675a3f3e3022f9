// Where a load's set of requests comes from: a log, or the model's schema and chance.
#ifndef HILOMOE_TOOLS_CLIENT_REQUEST_SOURCE_H_
#define HILOMOE_TOOLS_CLIENT_REQUEST_SOURCE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "hilomoe/v1/scoring_service.pb.h"
#include "tools/client/synthetic_requests.h"

namespace hilomoe {

// The first `count` requests of a log, grouped as hilomoe-client score groups them.
absl::StatusOr<std::vector<v1::ScoreRequest>> RequestsFromLog(const std::string& path, const ModelSpec& spec,
                                                              const std::string& group_by, size_t count);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_CLIENT_REQUEST_SOURCE_H_
