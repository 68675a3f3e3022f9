#include "server/grpc_port.h"

#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "grpc/compression.h"
#include "grpc/grpc.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/impl/server_builder_option.h"
#include "grpcpp/resource_quota.h"
#include "model/status_macros.h"

namespace hilomoe {
namespace {

// Linking reflection gives it to every server of the process; this takes it away from one.
class NoPlugins : public grpc::ServerBuilderOption {
 public:
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override { plugins->clear(); }
};

int MsOrNever(uint32_t ms) { return ms == 0 ? std::numeric_limits<int>::max() : static_cast<int>(ms); }

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcPort>> GrpcPort::Bind(const GrpcPortOptions& options,
                                                         const v1::ServerConfig& config) {
  HILOMOE_ASSIGN_OR_RETURN(std::unique_ptr<Listener> listener, Listener::Bind(options.setting, options.address));
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  auto port = std::unique_ptr<GrpcPort>(new GrpcPort(options, std::move(listener)));
  port->SetLimits(config);
  return port;
}

GrpcPort::GrpcPort(const GrpcPortOptions& options, std::unique_ptr<Listener> listener)
    : options_(options), listener_(std::move(listener)) {
  using Type = grpc::ServerBuilder::experimental_type::ExternalConnectionType;
  acceptor_ = builder_.experimental().AddExternalConnectionAcceptor(
      Type::FROM_FD, options.credentials ? options.credentials : grpc::InsecureServerCredentials());
  if (options.health_only) {
    builder_.RegisterCallbackGenericService(&other_than_health_);
    builder_.SetOption(std::make_unique<NoPlugins>());
  }
}

void GrpcPort::SetLimits(const v1::ServerConfig& config) {
  const auto set = [this](const char* name, int value) { builder_.AddChannelArgument(name, value); };
  set(GRPC_ARG_KEEPALIVE_TIME_MS, static_cast<int>(config.keepalive_ms()));
  set(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, static_cast<int>(config.keepalive_timeout_ms()));
  set(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  set(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, static_cast<int>(config.min_client_ping_ms()));
  set(GRPC_ARG_MAX_CONNECTION_IDLE_MS, MsOrNever(config.max_connection_idle_ms()));
  set(GRPC_ARG_MAX_CONNECTION_AGE_MS, MsOrNever(config.max_connection_age_ms()));
  set(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, static_cast<int>(config.max_connection_age_grace_ms()));
  set(GRPC_ARG_MAX_CONCURRENT_STREAMS, static_cast<int>(config.max_streams_per_connection()));
  set(GRPC_ARG_MAX_METADATA_SIZE, static_cast<int>(config.max_header_bytes()));
  set(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, static_cast<int>(config.handshake_timeout_ms()));
  builder_.SetMaxReceiveMessageSize(static_cast<int>(config.max_request_bytes()));

  // A message would be inflated before its size is checked. So gRPC is to leave it as it is, and to refuse its call.
  set(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0);
  builder_.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  builder_.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);

  builder_.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder_.SetSyncServerOption(grpc::ServerBuilder::MIN_POLLERS, 1);
  builder_.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 1);
  grpc::ResourceQuota quota(absl::StrCat("hilomoe ", options_.setting));
  quota.SetMaxThreads(options_.max_synchronous_calls);
  quota.Resize(options_.max_bytes);
  builder_.SetResourceQuota(quota);
}

absl::Status GrpcPort::Build() {
  server_ = builder_.BuildAndStart();
  if (server_ != nullptr) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("gRPC does not start a server for ", options_.setting, " '", options_.address,
                                          "'; its log lines say why"));
}

absl::Status GrpcPort::Open() {
  return listener_->Start(options_.spare_file_descriptors, [this](int listening_fd, int fd) {
    grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters connection;
    connection.listener_fd = listening_fd;
    connection.fd = fd;
    acceptor_->HandleNewConnection(&connection);
  });
}

GrpcPort::~GrpcPort() {
  if (server_ != nullptr) Shutdown(std::chrono::system_clock::now());
}

void GrpcPort::Shutdown(std::chrono::system_clock::time_point deadline) {
  listener_->Stop();
  server_->Shutdown(deadline);
}

void GrpcPort::CancelCalls() { grpc_server_cancel_all_calls(server_->c_server()); }

}  // namespace hilomoe
