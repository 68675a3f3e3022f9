#include "server/inference_service.h"

#include <utility>

#include "inference/grpc_inference_service.grpc.pb.h"
#include "server/control_method.h"
#include "server/infer_request_adapter.h"
#include "server/inference_metadata.h"
#include "server/unary_call.h"

namespace hilomoe {
namespace {

using Service = inference::GRPCInferenceService;
template <class Base>
using RawServer =
    Service::WithRawMethod_ServerLive<Service::WithRawMethod_ServerReady<Service::WithRawMethod_ServerMetadata<Base>>>;
template <class Base>
using RawModel =
    Service::WithRawMethod_ModelReady<Service::WithRawMethod_ModelMetadata<Service::WithRawMethod_ModelInfer<Base>>>;
template <class Base>
using RawRepository = Service::WithRawMethod_RepositoryIndex<
    Service::WithRawMethod_RepositoryModelLoad<Service::WithRawMethod_RepositoryModelUnload<Base>>>;

template <class Request, class Response>
absl::Status Deny(const Request&, Response*) {
  return absl::PermissionDeniedError(
      "models are loaded and unloaded on the server's admin port (admin_address), not on this one");
}

}  // namespace

class InferenceService::Rpcs : public RawServer<RawModel<RawRepository<Service::Service>>> {};

InferenceService::InferenceService() : rpcs_(std::make_unique<Rpcs>()) {}

InferenceService::~InferenceService() = default;

grpc::Service* InferenceService::grpc_service() { return rpcs_.get(); }

void InferenceService::Connect(const ScoringService::Limits& limits, const MethodDependencies& dependencies) {
  const auto unary = [this](auto request) {
    return [this, request](grpc::ServerContext* context, grpc::ByteBuffer* bytes, UnaryResponder* responder,
                           grpc::ServerCompletionQueue* queue,
                           void* tag) { (rpcs_.get()->*request)(context, bytes, responder, queue, queue, tag); };
  };
  Scoring::Options options;
  options.method = Method::kModelInfer;
  options.protocol = [] { return std::make_unique<InferRequestAdapter>(); };
  options.max_candidates = limits.max_candidates;
  options.max_queue_ms = limits.max_queue_ms;
  methods_.push_back(
      std::make_unique<ScoringMethod<UnaryMethod>>(unary(&Rpcs::RequestModelInfer), options, dependencies));

  const auto control = [&]<class Request, class Response>(auto request,
                                                          absl::Status (*handler)(const Request&, Response*)) {
    methods_.push_back(std::make_unique<ControlMethod<Request, Response>>(unary(request), handler, Method::kControl,
                                                                          dependencies.metrics));
  };
  const auto metadata = [&]<class Request, class Response>(
                            auto request, absl::Status (InferenceMetadata::*handler)(const Request&, Response*) const) {
    const InferenceMetadata answers(dependencies.repository, dependencies.metrics);
    methods_.push_back(std::make_unique<ControlMethod<Request, Response>>(
        unary(request),
        [answers, handler](const Request& r, Response* response) { return (answers.*handler)(r, response); },
        Method::kControl, dependencies.metrics));
  };
  metadata(&Rpcs::RequestServerLive, &InferenceMetadata::ServerLive);
  metadata(&Rpcs::RequestServerReady, &InferenceMetadata::ServerReady);
  metadata(&Rpcs::RequestModelReady, &InferenceMetadata::ModelReady);
  metadata(&Rpcs::RequestServerMetadata, &InferenceMetadata::ServerMetadata);
  metadata(&Rpcs::RequestModelMetadata, &InferenceMetadata::ModelMetadata);
  metadata(&Rpcs::RequestRepositoryIndex, &InferenceMetadata::PublicRepositoryIndex);
  control(&Rpcs::RequestRepositoryModelLoad,
          &Deny<inference::RepositoryModelLoadRequest, inference::RepositoryModelLoadResponse>);
  control(&Rpcs::RequestRepositoryModelUnload,
          &Deny<inference::RepositoryModelUnloadRequest, inference::RepositoryModelUnloadResponse>);
}

std::vector<RpcMethod*> InferenceService::methods() {
  std::vector<RpcMethod*> methods;
  for (const auto& method : methods_) methods.push_back(method.get());
  return methods;
}

}  // namespace hilomoe
