#include "server/grpc_status.h"

#include <string>

#include "server/utf8_prefix.h"

namespace hilomoe {

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  std::string message(status.message());
  if (message.size() > kMaxStatusMessageBytes) {
    message.resize(Utf8Prefix(message, kMaxStatusMessageBytes - 3).size());
    message += "...";
  }
  // The canonical codes have the same numbers on both sides.
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), message);
}

}  // namespace hilomoe
