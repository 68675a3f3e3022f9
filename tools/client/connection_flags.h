// The flags of every sub-command that talks to a server.
#ifndef HILOMOE_TOOLS_CLIENT_CONNECTION_FLAGS_H_
#define HILOMOE_TOOLS_CLIENT_CONNECTION_FLAGS_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/flags/declare.h"
#include "absl/status/statusor.h"
#include "tools/client/server_connection.h"

ABSL_DECLARE_FLAG(int64_t, deadline_ms);
ABSL_DECLARE_FLAG(std::string, report);

namespace hilomoe {

// Where these flags are defined, for Command::flag_files.
extern const std::string_view kConnectionFlagsFile;

absl::StatusOr<ConnectionOptions> ConnectionOptionsFromFlags();

// "--max_in_flight: 0 is not between 1 and 10000" unless it is.
absl::Status CheckRange(std::string_view flag, int64_t value, int64_t least, int64_t most);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_CLIENT_CONNECTION_FLAGS_H_
