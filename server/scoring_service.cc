#include "server/scoring_service.h"

#include <utility>

#include "hilomoe/v1/scoring_service.grpc.pb.h"
#include "hilomoe/v1/scoring_service.pb.h"
#include "server/control_method.h"
#include "server/model_description.h"
#include "server/score_request_adapter.h"
#include "server/stream_call.h"
#include "server/unary_call.h"

namespace hilomoe {

class ScoringService::Rpcs
    : public v1::ScoringService::WithRawMethod_Score<v1::ScoringService::WithRawMethod_ScoreStream<
          v1::ScoringService::WithRawMethod_GetModel<v1::ScoringService::Service>>> {};

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
  methods_.push_back(std::make_unique<ControlMethod<v1::GetModelRequest, v1::GetModelResponse>>(
      unary(&Rpcs::RequestGetModel),
      [repository = dependencies.repository](const v1::GetModelRequest& request, v1::GetModelResponse* response) {
        return DescribeModel(*repository, request, response);
      },
      Method::kGetModel, dependencies.metrics));
}

std::vector<RpcMethod*> ScoringService::methods() {
  std::vector<RpcMethod*> methods;
  for (const auto& method : methods_) methods.push_back(method.get());
  return methods;
}

}  // namespace hilomoe
