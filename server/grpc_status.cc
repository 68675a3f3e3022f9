#include "server/grpc_status.h"

#include <string>

namespace hilomoe {

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  std::string message(status.message());
  if (message.size() > kMaxStatusMessageBytes) {
    size_t end = kMaxStatusMessageBytes - 3;
    // Not within a UTF-8 character.
    while (end > 0 && (static_cast<unsigned char>(message[end]) & 0xC0) == 0x80) --end;
    message.resize(end);
    message += "...";
  }
  // The canonical codes have the same numbers on both sides.
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), message);
}

}  // namespace hilomoe
