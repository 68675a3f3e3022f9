// What is counted about one version of one model. Its series live as long as it does.
#ifndef HILOMOE_SERVER_MODEL_METRICS_H_
#define HILOMOE_SERVER_MODEL_METRICS_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/request_encoder.h"
#include "runtime/routing_statistics.h"
#include "server/metric_cells.h"
#include "server/score_histogram.h"

namespace hilomoe {

// kControl: what the v2 protocol asks beside scores.
enum class Method { kScore, kScoreStream, kGetModel, kModelInfer, kControl };
inline constexpr int kMethods = 5;
inline constexpr const char* kMethodNames[kMethods] = {"Score", "ScoreStream", "GetModel", "ModelInfer", "Control"};

// The full name of a method that scores, as in the path of an HTTP/2 request.
constexpr const char* ScoringMethodPath(Method method) {
  return method == Method::kScore         ? "/hilomoe.v1.ScoringService/Score"
         : method == Method::kScoreStream ? "/hilomoe.v1.ScoringService/ScoreStream"
                                          : "/inference.GRPCInferenceService/ModelInfer";
}

// The canonical codes of gRPC, 0 = OK to 16.
inline constexpr int kStatusCodes = 17;
inline constexpr const char* kStatusCodeNames[kStatusCodes] = {
    "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
    "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED"};
using RequestCounters = std::array<std::array<Counter, kStatusCodes>, kMethods>;

// decode: bytes -> message; queue: arrival -> start of the evaluation; encode: values -> rows of tables;
// evaluate: rows -> scores; reply: message -> bytes -> gRPC.
enum class Stage { kDecode, kQueue, kEncode, kEvaluate, kReply };
inline constexpr int kStages = 5;
inline constexpr const char* kStageNames[kStages] = {"decode", "queue", "encode", "evaluate", "reply"};

// A layer of experts, as training left it.
struct RoutingLayerFacts {
  std::string block;           // its name, such as "blocks.0"
  size_t layer = 0;            // of the block
  std::vector<float> trained;  // utilisation by expert; empty: not known
  float trained_entropy = 0;   // a share of ln K
};

// Facts about a loaded model, fixed at load.
struct ModelFacts {
  std::string name;
  uint64_t version = 0;
  std::string created_by;
  std::string instruction_set;
  std::string memory;                      // "COPY" or "MMAP"
  std::vector<std::string> features;       // names, in the spec's order
  std::vector<RoutingLayerFacts> routing;  // of RoutingStatistics::Totals' layers
  uint64_t bytes = 0;                      // Predictor::bytes
  double created_seconds = 0;              // since the epoch; 0 = unknown
  double loaded_seconds = 0;
  double load_duration_seconds = 0;
};

class ModelMetrics {
 public:
  // One serving thread's cells. Only that thread writes.
  struct alignas(64) Shard {
    explicit Shard(size_t num_features);
    // Adds what encoding has counted, and sets it back to zero.
    void Take(EncodeCounts* counts);

    RequestCounters requests;
    Counter candidates;
    Counter split_requests;
    Counter unknown_features;
    ScoreHistogram scores;
    Histogram request_candidates;
    std::array<Histogram, kMethods> request_duration_ns;
    std::array<Histogram, kStages> stage_ns;
    std::vector<Counter> values, out_of_vocabulary, missing;  // per feature
  };

  // routing: what the model's workspaces count in; null: nothing is counted.
  ModelMetrics(ModelFacts facts, int serving_threads, std::shared_ptr<const RoutingStatistics> routing = nullptr);

  Shard& shard(int thread) const { return *shards_[thread]; }
  const std::vector<std::unique_ptr<Shard>>& shards() const { return shards_; }
  const ModelFacts& facts() const { return facts_; }
  const RoutingStatistics* routing() const { return routing_.get(); }

 private:
  const ModelFacts facts_;
  const std::shared_ptr<const RoutingStatistics> routing_;
  std::vector<std::unique_ptr<Shard>> shards_;
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_MODEL_METRICS_H_
