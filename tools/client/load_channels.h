// Channels for a load: connections of their own, spread over all addresses of a target.
#ifndef HILOMOE_TOOLS_CLIENT_LOAD_CHANNELS_H_
#define HILOMOE_TOOLS_CLIENT_LOAD_CHANNELS_H_

#include <cstddef>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "grpcpp/grpcpp.h"
#include "tools/client/server_connection.h"

namespace hilomoe {

struct LoadChannelOptions {
  // Any gRPC target, several servers as ipv4:127.0.0.1:8500,127.0.0.1:8600; TLS; how long to try.
  ConnectionOptions server;
  size_t connections = 1;
  // Ask gRPC to watch the health of every server (grpc.health.v1 Watch) and to send only to those that serve.
  bool watch_health = false;
  // Of a call that is answered UNAVAILABLE or RESOURCE_EXHAUSTED, by gRPC, at most 4: after the time that the server
  // names in grpc-retry-pushback-ms, else after 10 ms, doubled each time.
  int retries = 0;
};

// UNAVAILABLE when no server can be reached in time.
absl::StatusOr<std::vector<std::shared_ptr<grpc::Channel>>> ConnectForLoad(const LoadChannelOptions& options);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_CLIENT_LOAD_CHANNELS_H_
