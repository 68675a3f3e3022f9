// hilomoe.v1.ScoringService over a CallLoop.
#ifndef HILOMOE_SERVER_SCORING_SERVICE_H_
#define HILOMOE_SERVER_SCORING_SERVICE_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "grpcpp/impl/service_type.h"
#include "server/call_loop.h"
#include "server/model_repository.h"
#include "server/server_metrics.h"

namespace hilomoe {

inline constexpr char kScoringServiceName[] = "hilomoe.v1.ScoringService";

// A request that waits in the queue weighs as many candidates as it has, but at least one for so many bytes, so that
// the queue's limit bounds memory, too.
inline constexpr size_t kBytesPerQueuedCandidate = 4096;

// Answers Score and GetModel. What it is made from must outlive it.
class ScoringService {
 public:
  struct Dependencies {
    CallLoop* loop = nullptr;
    const ModelRepository* repository = nullptr;
    ServerMetrics* metrics = nullptr;
  };
  // Registered with a ServerBuilder before its server starts.
  explicit ScoringService(uint32_t max_candidates);
  ~ScoringService();

  grpc::Service* grpc_service();

  // Once, before the loop starts.
  void Connect(const Dependencies& dependencies);
  std::vector<AsyncMethod*> methods();

 private:
  class Rpcs;
  class ScoreMethod;
  class GetModelMethod;

  std::unique_ptr<Rpcs> rpcs_;
  std::unique_ptr<ScoreMethod> score_;
  std::unique_ptr<GetModelMethod> get_model_;
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_SCORING_SERVICE_H_
