// inference.GRPCInferenceService on the admin port: loading and unloading, and all that the public port tells of
// models.
#ifndef HILOMOE_SERVER_ADMIN_SERVICE_H_
#define HILOMOE_SERVER_ADMIN_SERVICE_H_

#include "inference/grpc_inference_service.grpc.pb.h"
#include "server/inference_metadata.h"

namespace hilomoe {

// Loading and unloading return when it is done, with the errors of ModelRepository's methods: so the service is
// synchronous, for a server of its own, whose threads do not serve requests. ModelInfer is UNIMPLEMENTED here. What it
// is made from must outlive it; ModelRepository::Stop ends loads under way.
class AdminService final : public inference::GRPCInferenceService::Service {
 public:
  AdminService(ModelRepository* repository, const ServerMetrics* metrics)
      : repository_(repository), metadata_(repository, metrics) {}

  grpc::Status ServerLive(grpc::ServerContext*, const inference::ServerLiveRequest* request,
                          inference::ServerLiveResponse* response) override;
  grpc::Status ServerReady(grpc::ServerContext*, const inference::ServerReadyRequest* request,
                           inference::ServerReadyResponse* response) override;
  grpc::Status ModelReady(grpc::ServerContext*, const inference::ModelReadyRequest* request,
                          inference::ModelReadyResponse* response) override;
  grpc::Status ServerMetadata(grpc::ServerContext*, const inference::ServerMetadataRequest* request,
                              inference::ServerMetadataResponse* response) override;
  grpc::Status ModelMetadata(grpc::ServerContext*, const inference::ModelMetadataRequest* request,
                             inference::ModelMetadataResponse* response) override;
  grpc::Status RepositoryIndex(grpc::ServerContext*, const inference::RepositoryIndexRequest* request,
                               inference::RepositoryIndexResponse* response) override;
  grpc::Status RepositoryModelLoad(grpc::ServerContext*, const inference::RepositoryModelLoadRequest* request,
                                   inference::RepositoryModelLoadResponse* response) override;
  grpc::Status RepositoryModelUnload(grpc::ServerContext*, const inference::RepositoryModelUnloadRequest* request,
                                     inference::RepositoryModelUnloadResponse* response) override;

 private:
  ModelRepository* const repository_;
  const InferenceMetadata metadata_;
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_ADMIN_SERVICE_H_
