// One gRPC server on one address, within the limits of the config, with health.
#ifndef HILOMOE_SERVER_GRPC_PORT_H_
#define HILOMOE_SERVER_GRPC_PORT_H_

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grpcpp/generic/async_generic_service.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "hilomoe/v1/server_config.pb.h"
#include "server/listener.h"

namespace hilomoe {

struct GrpcPortOptions {
  std::string setting = {};  // which one of the config the address is
  std::string address = {};
  std::shared_ptr<grpc::ServerCredentials> credentials = nullptr;  // null: plaintext
  // The reserve that it leaves to the other ports; they are to work while this one is flooded.
  int spare_file_descriptors = 0;
  uint64_t max_bytes = 0;  // memory for what is being received
  // Of services that take a thread for every open call, such as reflection; more are refused.
  int max_synchronous_calls = 4;
  bool health_only = false;  // no reflection, no other services
};

class GrpcPort {
 public:
  // Reserves the address. Errors as Listener::Bind.
  static absl::StatusOr<std::unique_ptr<GrpcPort>> Bind(const GrpcPortOptions& options, const v1::ServerConfig& config);
  // Without grace.
  ~GrpcPort();

  // Before Build: takes the services and completion queues.
  grpc::ServerBuilder& builder() { return builder_; }
  // Once. Calls may be asked for from now on, and health set; none come before Open.
  absl::Status Build();
  grpc::Server& server() { return *server_; }
  // Once: takes connections.
  absl::Status Open();
  int port() const { return listener_->port(); }

  // Takes no new connections and calls, and returns when those under way have ended; those that are left at the
  // deadline are cancelled.
  void Shutdown(std::chrono::system_clock::time_point deadline);
  void CancelCalls();

 private:
  GrpcPort(const GrpcPortOptions& options, std::unique_ptr<Listener> listener);
  void SetLimits(const v1::ServerConfig& config);

  const GrpcPortOptions options_;
  std::unique_ptr<Listener> listener_;
  // UNIMPLEMENTED. A server without a service would not start.
  grpc::CallbackGenericService other_than_health_;
  grpc::ServerBuilder builder_;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_GRPC_PORT_H_
