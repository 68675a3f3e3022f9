#include "server/call_endings.h"

#include "grpcpp/impl/codegen/proto_utils.h"
#include "server/grpc_status.h"

namespace hilomoe {

grpc::Status Serialize(const google::protobuf::Message& message, grpc::ByteBuffer* bytes) {
  bool own = false;
  return grpc::SerializationTraits<google::protobuf::Message>::Serialize(message, bytes, &own);
}

void CallEndings::Reply(Call* call, int thread, const google::protobuf::Message& response) const {
  grpc::ByteBuffer bytes;
  const grpc::Status serialized = Serialize(response, &bytes);
  Count(*call, thread, serialized.ok() ? absl::OkStatus() : absl::InternalError("the response cannot be serialized"));
  serialized.ok() ? call->Reply(bytes) : call->Fail(serialized);
}

void CallEndings::Fail(Call* call, int thread, const absl::Status& status) const {
  Count(*call, thread, status);
  call->Fail(ToGrpcStatus(status));
}

void CallEndings::Shed(Call* call, int thread, ShedReason reason, const absl::Status& status) const {
  metrics_->shard(thread).shed[static_cast<int>(reason)].Add();
  Fail(call, thread, status);
}

void CallEndings::Count(const Call& call, int thread, const absl::Status& status) const {
  const int code = static_cast<int>(status.code());
  ServerMetrics::Shard& shard = metrics_->shard(thread);
  RequestCounters& counters = call.model ? call.model->metrics(thread).requests : shard.without_model;
  counters[static_cast<int>(method_)][code].Add();
  shard.finished.Add();
  if (log_ != nullptr && log_->Wants(thread, code)) RequestLog::Write(call, method_, status);
}

}  // namespace hilomoe
