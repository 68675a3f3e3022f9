// absl::Status -> grpc::Status, in the one place where it is done.
#ifndef HILOMOE_SERVER_GRPC_STATUS_H_
#define HILOMOE_SERVER_GRPC_STATUS_H_

#include "absl/status/status.h"
#include "grpcpp/support/status.h"

namespace hilomoe {

// The same code; the message cut to kMaxStatusMessageBytes, because it travels in a header of bounded size and may
// quote what the client sent.
inline constexpr size_t kMaxStatusMessageBytes = 1024;
grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_GRPC_STATUS_H_
