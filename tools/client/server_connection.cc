#include "tools/client/server_connection.h"

#include <chrono>

#include "absl/strings/str_cat.h"
#include "hilomoe/v1/scoring_service.grpc.pb.h"

namespace hilomoe {
namespace {

// Short against gRPC's 1 s and 120 s, so that a server that restarts is found again between two retries.
constexpr int kFirstReconnectMs = 100;
constexpr int kLongestReconnectMs = 1000;
// For the call that only asks why there is no connection.
constexpr absl::Duration kReasonTimeout = absl::Milliseconds(50);

grpc::Status CallGetModel(const std::shared_ptr<grpc::Channel>& channel, const ConnectionOptions& options,
                          absl::Duration timeout, v1::GetModelResponse* response) {
  v1::GetModelRequest request;
  request.set_model(options.model);
  request.set_version(options.version);
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  return v1::ScoringService::NewStub(channel)->GetModel(&context, request, response);
}

}  // namespace

absl::Status FromGrpc(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

std::shared_ptr<grpc::ChannelCredentials> MakeCredentials(const ConnectionOptions& options) {
  if (!options.tls) return grpc::InsecureChannelCredentials();
  return grpc::SslCredentials({options.ca, options.key, options.certificate});
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> Connect(const ConnectionOptions& options) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kFirstReconnectMs);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kFirstReconnectMs);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kLongestReconnectMs);
  // Retries are counted and paced by the caller.
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  if (!options.server_name.empty()) arguments.SetSslTargetNameOverride(options.server_name);
  std::shared_ptr<grpc::Channel> channel =
      grpc::CreateCustomChannel(options.address, MakeCredentials(options), arguments);
  if (channel->WaitForConnected(absl::ToChronoTime(absl::Now() + options.connect_timeout))) return channel;
  v1::GetModelResponse ignored;
  const grpc::Status reason = CallGetModel(channel, options, kReasonTimeout, &ignored);
  return absl::UnavailableError(absl::StrCat("cannot connect to ", options.address, " within ",
                                             absl::FormatDuration(options.connect_timeout), ": ",
                                             reason.error_code() == grpc::UNAVAILABLE ? reason.error_message()
                                             : options.tls ? "nothing there speaks gRPC over TLS"
                                                           : "nothing there speaks gRPC in plaintext"));
}

absl::StatusOr<v1::GetModelResponse> FetchModel(const std::shared_ptr<grpc::Channel>& channel,
                                                const ConnectionOptions& options) {
  v1::GetModelResponse response;
  const grpc::Status status = CallGetModel(channel, options, options.connect_timeout, &response);
  if (status.ok()) return response;
  const absl::Status error = FromGrpc(status);
  return absl::Status(
      error.code(),
      absl::StrCat(options.address, ": GetModel: ", absl::StatusCodeToString(error.code()), ": ", error.message()));
}

}  // namespace hilomoe
