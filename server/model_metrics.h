// What is counted about one version of one model. Its series live as long as it does.
#ifndef HILOMOE_SERVER_MODEL_METRICS_H_
#define HILOMOE_SERVER_MODEL_METRICS_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/request_encoder.h"
#include "server/metric_cells.h"

namespace hilomoe {

// kControl: what the v2 protocol asks beside scores.
enum class Method { kScore, kScoreStream, kGetModel, kModelInfer, kControl };
inline constexpr int kMethods = 5;
inline constexpr const char* kMethodNames[kMethods] = {"Score", "ScoreStream", "GetModel", "ModelInfer", "Control"};

// The canonical codes of gRPC, 0 = OK to 16.
inline constexpr int kStatusCodes = 17;
using RequestCounters = std::array<std::array<Counter, kStatusCodes>, kMethods>;

// decode: bytes -> message; queue: arrival -> start of the evaluation; encode: values -> rows of tables;
// evaluate: rows -> scores; reply: message -> bytes -> gRPC.
enum class Stage { kDecode, kQueue, kEncode, kEvaluate, kReply };
inline constexpr int kStages = 5;
inline constexpr const char* kStageNames[kStages] = {"decode", "queue", "encode", "evaluate", "reply"};

// Facts about a loaded model, fixed at load.
struct ModelFacts {
  std::string name;
  uint64_t version = 0;
  std::string created_by;
  std::string instruction_set;
  std::string memory;                 // "COPY" or "MMAP"
  std::vector<std::string> features;  // names, in the spec's order
  uint64_t bytes = 0;                 // Predictor::bytes
  double created_seconds = 0;         // since the epoch; 0 = unknown
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
    Histogram request_candidates;
    Histogram request_duration_ns;
    std::array<Histogram, kStages> stage_ns;
    std::vector<Counter> values, out_of_vocabulary, missing;  // per feature
  };

  ModelMetrics(ModelFacts facts, int serving_threads);

  Shard& shard(int thread) const { return *shards_[thread]; }
  const std::vector<std::unique_ptr<Shard>>& shards() const { return shards_; }
  const ModelFacts& facts() const { return facts_; }

 private:
  const ModelFacts facts_;
  std::vector<std::unique_ptr<Shard>> shards_;
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_MODEL_METRICS_H_
