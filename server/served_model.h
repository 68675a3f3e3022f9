// One version of one model, ready to answer requests.
#ifndef HILOMOE_SERVER_SERVED_MODEL_H_
#define HILOMOE_SERVER_SERVED_MODEL_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hilomoe/v1/server_config.pb.h"
#include "runtime/available_memory.h"
#include "runtime/predictor.h"
#include "runtime/tile_team.h"
#include "server/model_metrics.h"

namespace hilomoe {

struct ModelLocation {
  std::string model;
  uint64_t version = 0;
  std::string path;
};

// Who evaluates requests.
struct EvaluatingThreads {
  int serving = 1;
  TileTeam* team = nullptr;  // helps with requests of at least split_candidates (0 = none); null: nobody helps
  size_t split_candidates = 0;
  uint32_t routing_sample = 0;  // they count routing on one tile of so many; 0 = not at all
};

class ServedModel;

struct ModelLoadOptions {
  v1::ServerConfig::ModelMemory memory = v1::ServerConfig::AUTO;
  int threads = 1;  // that read and verify a file
  // What a copied file lies in, and leaves behind. Null: new memory, freed in the end.
  std::shared_ptr<SpareMemory> spare = nullptr;
  std::function<double()> available_memory = AvailableMemoryBytes;
  // Asked now and then while a file is read; true ends the load with CANCELLED. May be empty.
  std::function<bool()> cancelled = nullptr;
  // Called once, on the thread that finds out, when the model has become broken; see CheckIntact. May be empty.
  std::function<void()> on_broken = nullptr;
  // Destroys the model, which gives gigabytes back, once nobody holds it; called on the last owner's thread. Empty:
  // destroyed there.
  std::function<void(std::unique_ptr<const ServedModel>)> dispose = nullptr;
};

// Immutable but for the workspaces and the metrics' cells, of which every serving thread has its own.
class ServedModel {
 public:
  // Opens and verifies the file, prepares the predictor, replays the golden rows, allocates the workspaces and warms
  // all of it up. The team outlives the model. RESOURCE_EXHAUSTED for a model that is to be copied and does not fit
  // beside what is resident, and where memory runs out all the same.
  static absl::StatusOr<std::shared_ptr<const ServedModel>> Load(const ModelLocation& location,
                                                                 const EvaluatingThreads& threads,
                                                                 const ModelLoadOptions& options = {});

  const std::string& name() const { return metrics_->facts().name; }
  uint64_t version() const { return metrics_->facts().version; }
  const Predictor& predictor() const { return *predictor_; }
  Workspace* workspace(int thread) const { return workspaces_[thread].get(); }
  ModelMetrics::Shard& metrics(int thread) const { return metrics_->shard(thread); }
  const std::shared_ptr<const ModelMetrics>& shared_metrics() const { return metrics_; }

  // To be asked between evaluation and reply: UNAVAILABLE when scores may be wrong since the model's file, being
  // mapped, was truncated or written to. From then on for good; the first time, on_broken is called.
  absl::Status CheckIntact() const;
  // What CheckIntact has found so far.
  bool broken() const { return broken_.load(std::memory_order_relaxed); }

 private:
  ServedModel() = default;

  // Without catching std::bad_alloc, and without the model's name in errors.
  static absl::StatusOr<std::shared_ptr<const ServedModel>> LoadOrThrow(const ModelLocation& location,
                                                                        const EvaluatingThreads& threads,
                                                                        const ModelLoadOptions& options);

  std::unique_ptr<Predictor> predictor_;
  std::shared_ptr<RoutingStatistics> routing_;
  std::unique_ptr<PredictorHelpers> helpers_;  // null without a team
  std::vector<std::unique_ptr<Workspace>> workspaces_;
  std::shared_ptr<const ModelMetrics> metrics_;
  std::function<void()> on_broken_;
  mutable std::atomic<bool> broken_{false};
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_SERVED_MODEL_H_
