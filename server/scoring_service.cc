#include "server/scoring_service.h"

#include <utility>

#include "grpcpp/support/proto_buffer_reader.h"
#include "hilomoe/v1/scoring_service.grpc.pb.h"
#include "hilomoe/v1/scoring_service.pb.h"
#include "server/score_request_adapter.h"
#include "server/stream_call.h"
#include "server/unary_call.h"

namespace hilomoe {

class ScoringService::Rpcs
    : public v1::ScoringService::WithRawMethod_Score<v1::ScoringService::WithRawMethod_ScoreStream<
          v1::ScoringService::WithRawMethod_GetModel<v1::ScoringService::Service>>> {};

class ScoringService::GetModelMethod : public UnaryMethod {
 public:
  GetModelMethod(RequestFunction request, const MethodDependencies& dependencies)
      : UnaryMethod(std::move(request)),
        repository_(dependencies.repository),
        endings_(Method::kGetModel, dependencies.metrics) {}

 private:
  void Arrive(Call* call, int thread) override {
    endings_.Start(thread);
    v1::GetModelRequest request;
    grpc::ProtoBufferReader bytes(call->request());
    if (!request.ParseFromZeroCopyStream(&bytes)) {
      endings_.Fail(call, thread,
                    absl::InvalidArgumentError("the request's bytes are not a hilomoe.v1.GetModelRequest"));
      return;
    }
    absl::StatusOr<std::shared_ptr<const ServedModel>> model =
        repository_->table()->Find(request.model(), request.version());
    if (!model.ok()) {
      endings_.Fail(call, thread, model.status());
      return;
    }
    call->model = *std::move(model);
    const v1::ModelFileHeader& header = call->model->predictor().file().header();
    v1::GetModelResponse response;
    response.set_model(call->model->name());
    response.set_version(call->model->version());
    *response.mutable_config() = header.config();
    response.set_created(header.provenance().created());
    response.set_created_by(header.provenance().created_by());
    response.set_label(header.provenance().label());
    response.set_group_by(header.provenance().group_by());
    endings_.Reply(call, thread, response);
  }

  const ModelRepository* const repository_;
  const CallEndings endings_;
};

ScoringService::ScoringService() : rpcs_(std::make_unique<Rpcs>()) {}

ScoringService::~ScoringService() = default;

grpc::Service* ScoringService::grpc_service() { return rpcs_.get(); }

void ScoringService::Connect(const Limits& limits, const MethodDependencies& dependencies) {
  const auto unary = [this](auto request) {
    return [this, request](grpc::ServerContext* context, grpc::ByteBuffer* bytes, UnaryResponder* responder,
                           grpc::ServerCompletionQueue* queue,
                           void* tag) { (rpcs_.get()->*request)(context, bytes, responder, queue, queue, tag); };
  };
  Scoring::Options options;
  options.protocol = [] { return std::make_unique<ScoreRequestAdapter>(); };
  options.max_candidates = limits.max_candidates;
  options.max_queue_ms = limits.max_queue_ms;
  options.method = Method::kScore;
  methods_.push_back(std::make_unique<ScoringMethod<UnaryMethod>>(unary(&Rpcs::RequestScore), options, dependencies));
  options.method = Method::kScoreStream;
  options.stream = true;
  methods_.push_back(std::make_unique<ScoringMethod<StreamMethod>>(
      [this](grpc::ServerContext* context, ByteStream* stream, grpc::ServerCompletionQueue* queue, void* tag) {
        rpcs_->RequestScoreStream(context, stream, queue, queue, tag);
      },
      options, dependencies));
  methods_.push_back(std::make_unique<GetModelMethod>(unary(&Rpcs::RequestGetModel), dependencies));
}

std::vector<RpcMethod*> ScoringService::methods() {
  std::vector<RpcMethod*> methods;
  for (const auto& method : methods_) methods.push_back(method.get());
  return methods;
}

}  // namespace hilomoe
