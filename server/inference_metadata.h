// What the Open Inference Protocol v2 asks beside scores: liveness, metadata, the repository.
#ifndef HILOMOE_SERVER_INFERENCE_METADATA_H_
#define HILOMOE_SERVER_INFERENCE_METADATA_H_

#include <string>

#include "absl/status/status.h"
#include "inference/grpc_inference_service.pb.h"
#include "server/model_repository.h"
#include "server/server_metrics.h"

namespace hilomoe {

// INVALID_ARGUMENT for any name: there is one repository.
absl::Status CheckRepositoryName(const std::string& name);

// One method for each rpc; `response` is empty before. What it is made from must outlive it. Any thread.
class InferenceMetadata {
 public:
  InferenceMetadata(const ModelRepository* repository, const ServerMetrics* metrics)
      : repository_(repository), metrics_(metrics) {}

  absl::Status ServerLive(const inference::ServerLiveRequest& request, inference::ServerLiveResponse* response) const;
  absl::Status ServerReady(const inference::ServerReadyRequest& request,
                           inference::ServerReadyResponse* response) const;
  absl::Status ModelReady(const inference::ModelReadyRequest& request, inference::ModelReadyResponse* response) const;
  absl::Status ServerMetadata(const inference::ServerMetadataRequest& request,
                              inference::ServerMetadataResponse* response) const;
  // NOT_FOUND and UNAVAILABLE as ModelTable::Find.
  absl::Status ModelMetadata(const inference::ModelMetadataRequest& request,
                             inference::ModelMetadataResponse* response) const;
  absl::Status RepositoryIndex(const inference::RepositoryIndexRequest& request,
                               inference::RepositoryIndexResponse* response) const;
  // For who sends requests: the reasons tell no paths.
  absl::Status PublicRepositoryIndex(const inference::RepositoryIndexRequest& request,
                                     inference::RepositoryIndexResponse* response) const;

 private:
  const ModelRepository* const repository_;
  const ServerMetrics* const metrics_;
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_INFERENCE_METADATA_H_
