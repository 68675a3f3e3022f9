// From start to exit of the program.
#ifndef HILOMOE_SERVER_RUN_SERVER_H_
#define HILOMOE_SERVER_RUN_SERVER_H_

#include "absl/status/status.h"
#include "server/server_options.h"

namespace hilomoe {

// Runs a server until SIGTERM or SIGINT, then drains it as the config says; a second signal ends the drain's first
// part, in which requests are still taken. To be called while the process has a single thread: the signals are
// blocked in all threads.
absl::Status RunServer(const ServerOptions& options);

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_RUN_SERVER_H_
