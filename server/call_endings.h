// Ends calls and counts how they ended.
#ifndef HILOMOE_SERVER_CALL_ENDINGS_H_
#define HILOMOE_SERVER_CALL_ENDINGS_H_

#include "absl/status/status.h"
#include "google/protobuf/message.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/proto_buffer_writer.h"
#include "server/call.h"
#include "server/grpc_status.h"
#include "server/server_metrics.h"

namespace hilomoe {

// `bytes`: the message as gRPC sends it.
grpc::Status Serialize(const google::protobuf::Message& message, grpc::ByteBuffer* bytes);

// Of one method. Any serving thread; `thread` is its number.
class CallEndings {
 public:
  CallEndings(Method method, ServerMetrics* metrics) : method_(static_cast<int>(method)), metrics_(metrics) {}

  void Start(int thread) const { metrics_->shard(thread).started.Add(); }

  void Reply(Call* call, int thread, const google::protobuf::Message& response) const;
  void Fail(Call* call, int thread, const absl::Status& status) const;
  void Shed(Call* call, int thread, ShedReason reason, const absl::Status& status) const;
  // A request that is answered by other means.
  void Count(const Call& call, int thread, int code) const;

 private:
  const int method_;
  ServerMetrics* const metrics_;
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_CALL_ENDINGS_H_
