// How the server is told what to do: a config file, and flags that win over it.
#ifndef HILOMOE_SERVER_SERVER_OPTIONS_H_
#define HILOMOE_SERVER_SERVER_OPTIONS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hilomoe/v1/server_config.pb.h"

namespace hilomoe {

struct ServerOptions {
  v1::ServerConfig config;
  std::string port_file;  // where the ports in use are written once serving; empty = nowhere
  std::string help;       // what to print instead of serving; empty = serve
};

// --config=FILE, then every other flag over it. Flags are the single values of ServerConfig, found in its schema:
// a new field needs nothing here. INVALID_ARGUMENT names the unknown flag, the flag's bad value, or the field with file
// and line.
absl::StatusOr<ServerOptions> ParseServerOptions(int argc, const char* const* argv);

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_SERVER_OPTIONS_H_
