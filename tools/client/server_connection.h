// A channel to a hilomoe server, and what it says of its model.
#ifndef HILOMOE_TOOLS_CLIENT_SERVER_CONNECTION_H_
#define HILOMOE_TOOLS_CLIENT_SERVER_CONNECTION_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/grpcpp.h"
#include "hilomoe/v1/scoring_service.pb.h"

namespace hilomoe {

struct ConnectionOptions {
  std::string address = "127.0.0.1:8500";  // any gRPC target
  std::string model;                       // empty: the server's only one
  uint64_t version = 0;                    // 0: the newest served
  absl::Duration connect_timeout = absl::Seconds(5);

  bool tls = false;
  std::string ca;           // PEM: who may have signed the server's certificate; empty: the system's authorities
  std::string certificate;  // PEM: the client's own, with its key; empty: none
  std::string key;
  std::string server_name;  // that the server's certificate must have; empty: the host of `address`
};

// The codes of both are the same numbers.
absl::Status FromGrpc(const grpc::Status& status);

// As the options say. A channel to a name that the certificate does not have needs SetSslTargetNameOverride, too.
std::shared_ptr<grpc::ChannelCredentials> MakeCredentials(const ConnectionOptions& options);

// A connected channel. Tries until the timeout, so that a server may still be starting; UNAVAILABLE with the
// reason of the last attempt.
absl::StatusOr<std::shared_ptr<grpc::Channel>> Connect(const ConnectionOptions& options);

absl::StatusOr<v1::GetModelResponse> FetchModel(const std::shared_ptr<grpc::Channel>& channel,
                                                const ConnectionOptions& options);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_CLIENT_SERVER_CONNECTION_H_
