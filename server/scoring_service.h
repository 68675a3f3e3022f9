// hilomoe.v1.ScoringService over a CallLoop.
#ifndef HILOMOE_SERVER_SCORING_SERVICE_H_
#define HILOMOE_SERVER_SCORING_SERVICE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "grpcpp/impl/service_type.h"
#include "server/scoring.h"

namespace hilomoe {

inline constexpr char kScoringServiceName[] = "hilomoe.v1.ScoringService";

// Answers Score, ScoreStream and GetModel. What it is made from must outlive it.
class ScoringService {
 public:
  // Registered with a ServerBuilder before its server starts.
  ScoringService();
  ~ScoringService();

  grpc::Service* grpc_service();

  struct Limits {
    uint32_t max_candidates = 0;
    uint32_t max_queue_ms = 0;
  };
  // Once, before the loop starts.
  void Connect(const Limits& limits, const MethodDependencies& dependencies);
  std::vector<RpcMethod*> methods();

 private:
  class Rpcs;

  std::unique_ptr<Rpcs> rpcs_;
  std::vector<std::unique_ptr<RpcMethod>> methods_;
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_SCORING_SERVICE_H_
