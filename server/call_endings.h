// Ends calls and counts how they ended.
#ifndef HILOMOE_SERVER_CALL_ENDINGS_H_
#define HILOMOE_SERVER_CALL_ENDINGS_H_

#include "absl/status/status.h"
#include "google/protobuf/message.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/proto_buffer_writer.h"
#include "server/call.h"
#include "server/grpc_status.h"
#include "server/request_log.h"
#include "server/server_metrics.h"

namespace hilomoe {

// `bytes`: the message as gRPC sends it.
grpc::Status Serialize(const google::protobuf::Message& message, grpc::ByteBuffer* bytes);

// Of one method. Any serving thread; `thread` is its number.
class CallEndings {
 public:
  // log may be null.
  CallEndings(Method method, ServerMetrics* metrics, RequestLog* log = nullptr)
      : method_(method), metrics_(metrics), log_(log) {}

  void Start(int thread) const { metrics_->shard(thread).started.Add(); }

  void Reply(Call* call, int thread, const google::protobuf::Message& response) const;
  void Fail(Call* call, int thread, const absl::Status& status) const;
  void Shed(Call* call, int thread, ShedReason reason, const absl::Status& status) const;
  // Before a request is answered by other means.
  void Count(const Call& call, int thread, const absl::Status& status) const;

 private:
  const Method method_;
  ServerMetrics* const metrics_;
  RequestLog* const log_;
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_CALL_ENDINGS_H_
