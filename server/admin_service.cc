#include "server/admin_service.h"

#include "server/grpc_status.h"

namespace hilomoe {

grpc::Status AdminService::ServerLive(grpc::ServerContext*, const inference::ServerLiveRequest* request,
                                      inference::ServerLiveResponse* response) {
  return ToGrpcStatus(metadata_.ServerLive(*request, response));
}

grpc::Status AdminService::ServerReady(grpc::ServerContext*, const inference::ServerReadyRequest* request,
                                       inference::ServerReadyResponse* response) {
  return ToGrpcStatus(metadata_.ServerReady(*request, response));
}

grpc::Status AdminService::ModelReady(grpc::ServerContext*, const inference::ModelReadyRequest* request,
                                      inference::ModelReadyResponse* response) {
  return ToGrpcStatus(metadata_.ModelReady(*request, response));
}

grpc::Status AdminService::ServerMetadata(grpc::ServerContext*, const inference::ServerMetadataRequest* request,
                                          inference::ServerMetadataResponse* response) {
  return ToGrpcStatus(metadata_.ServerMetadata(*request, response));
}

grpc::Status AdminService::ModelMetadata(grpc::ServerContext*, const inference::ModelMetadataRequest* request,
                                         inference::ModelMetadataResponse* response) {
  return ToGrpcStatus(metadata_.ModelMetadata(*request, response));
}

grpc::Status AdminService::RepositoryIndex(grpc::ServerContext*, const inference::RepositoryIndexRequest* request,
                                           inference::RepositoryIndexResponse* response) {
  return ToGrpcStatus(metadata_.RepositoryIndex(*request, response));
}

grpc::Status AdminService::RepositoryModelLoad(grpc::ServerContext* context,
                                               const inference::RepositoryModelLoadRequest* request,
                                               inference::RepositoryModelLoadResponse*) {
  absl::Status status = CheckRepositoryName(request->repository_name());
  if (status.ok() && !request->parameters().empty()) {
    status = absl::InvalidArgumentError("parameters: none is known; a model is loaded as it lies in the repository");
  }
  return ToGrpcStatus(
      status.ok() ? repository_->Load(request->model_name(), [context] { return context->IsCancelled(); }) : status);
}

grpc::Status AdminService::RepositoryModelUnload(grpc::ServerContext* context,
                                                 const inference::RepositoryModelUnloadRequest* request,
                                                 inference::RepositoryModelUnloadResponse*) {
  const absl::Status status = CheckRepositoryName(request->repository_name());
  return ToGrpcStatus(
      status.ok() ? repository_->Unload(request->model_name(), [context] { return context->IsCancelled(); }) : status);
}

}  // namespace hilomoe
