// The flags of every sub-command that talks to a server.
#ifndef HILOMOE_TOOLS_CLIENT_CONNECTION_FLAGS_H_
#define HILOMOE_TOOLS_CLIENT_CONNECTION_FLAGS_H_

#include <string_view>

#include "absl/status/statusor.h"
#include "tools/client/server_connection.h"

namespace hilomoe {

// Where these flags are defined, for Command::flag_files.
extern const std::string_view kConnectionFlagsFile;

absl::StatusOr<ConnectionOptions> ConnectionOptionsFromFlags();

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_CLIENT_CONNECTION_FLAGS_H_
