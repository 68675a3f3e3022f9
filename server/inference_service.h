// inference.GRPCInferenceService, the Open Inference Protocol v2, over a CallLoop: the public port's.
#ifndef HILOMOE_SERVER_INFERENCE_SERVICE_H_
#define HILOMOE_SERVER_INFERENCE_SERVICE_H_

#include <memory>
#include <vector>

#include "grpcpp/impl/service_type.h"
#include "server/scoring.h"
#include "server/scoring_service.h"

namespace hilomoe {

inline constexpr char kInferenceServiceName[] = "inference.GRPCInferenceService";

// Loading and unloading answer PERMISSION_DENIED; see AdminService. What it is made from must outlive it.
class InferenceService {
 public:
  // Registered with a ServerBuilder before its server starts.
  InferenceService();
  ~InferenceService();

  grpc::Service* grpc_service();

  // Once, before the loop starts.
  void Connect(const ScoringService::Limits& limits, const MethodDependencies& dependencies);
  std::vector<RpcMethod*> methods();

 private:
  class Rpcs;

  std::unique_ptr<Rpcs> rpcs_;
  std::vector<std::unique_ptr<RpcMethod>> methods_;
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_INFERENCE_SERVICE_H_
