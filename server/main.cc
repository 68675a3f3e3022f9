// hilomoe-server: serves models over gRPC. Exit code 0 after a drain or a signal while it starts, 1 when it cannot
// serve, 2 for wrong options.
#include <chrono>
#include <iostream>

#include "server/log.h"
#include "server/run_server.h"
#include "server/server_options.h"

int main(int argc, char** argv) {
  const absl::StatusOr<hilomoe::ServerOptions> options = hilomoe::ParseServerOptions(argc, argv);
  if (!options.ok()) {
    std::cerr << "hilomoe-server: " << options.status().message() << '\n';
    return 2;
  }
  if (!options->help.empty()) {
    std::cout << options->help;
    return 0;
  }
  const absl::Status status = hilomoe::RunServer(*options);
  hilomoe::FlushLog(std::chrono::seconds(1));  // not for longer, if nobody reads it
  if (!status.ok()) {
    std::cerr << "hilomoe-server: " << status.message() << '\n';
    return 1;
  }
  return 0;
}
