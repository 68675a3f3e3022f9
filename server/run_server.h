// From start to exit of the program.
#ifndef HILOMOE_SERVER_RUN_SERVER_H_
#define HILOMOE_SERVER_RUN_SERVER_H_

#include "absl/status/status.h"
#include "server/server_options.h"

namespace hilomoe {

// Runs a server until SIGTERM or SIGINT, then drains it as the config says; a second signal ends the drain's first
// part, in which requests are still taken. During the start such a signal ends the process at once, with exit code 0.
// SIGHUP reads the certificates again; models need no signal, and other settings a restart. systemd is told by
// sd_notify(3). To be called while the process has a single thread: the signals are blocked in all threads.
absl::Status RunServer(const ServerOptions& options);

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_RUN_SERVER_H_
