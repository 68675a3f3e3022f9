// The models on disk and the ones that are served: <root>/<model>/<version>/model.hilomoe.
#ifndef HILOMOE_SERVER_MODEL_REPOSITORY_H_
#define HILOMOE_SERVER_MODEL_REPOSITORY_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "hilomoe/v1/server_config.pb.h"
#include "runtime/predictor.h"
#include "runtime/tile_team.h"
#include "server/model_metrics.h"

namespace hilomoe {

struct ModelLocation {
  std::string model;
  uint64_t version = 0;
  std::string path;
};

struct RepositoryListing {
  std::vector<ModelLocation> models;  // the newest version of each, by name
  std::vector<std::string> skipped;   // what looked like a model and is none, with the reason
};

// Looks through `root`. Hidden names and names with ".tmp" are copies under way and passed over in silence; versions
// that are not positive decimal numbers and versions without a model file are skipped. NOT_FOUND for a root that
// cannot be read, FAILED_PRECONDITION for one without a model.
absl::StatusOr<RepositoryListing> ListModels(const std::string& root);

// Who evaluates requests.
struct EvaluatingThreads {
  int serving = 1;
  TileTeam* team = nullptr;  // helps with requests of at least split_candidates (0 = none); null: nobody helps
  size_t split_candidates = 0;
};

struct ModelLoadOptions {
  v1::ServerConfig::ModelMemory memory = v1::ServerConfig::AUTO;
  int threads = 1;  // that read and verify a file
};

// A model in service. Immutable but for the workspaces and the metrics' cells, of which every serving thread has its
// own.
class ServedModel {
 public:
  // Opens and verifies the file, prepares the predictor, replays the golden rows, allocates the workspaces. The team
  // outlives the model.
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
  // mapped, was truncated or written to. From then on for good; the first time, it is logged.
  absl::Status CheckIntact() const;

 private:
  ServedModel() = default;

  std::unique_ptr<Predictor> predictor_;
  std::unique_ptr<PredictorHelpers> helpers_;  // null without a team
  std::vector<std::unique_ptr<Workspace>> workspaces_;
  std::shared_ptr<const ModelMetrics> metrics_;
};

// What is served at one moment; immutable.
class ModelTable {
 public:
  explicit ModelTable(std::vector<std::shared_ptr<const ServedModel>> models);

  // An empty name stands for the only model, version 0 for the newest. NOT_FOUND lists what there is;
  // INVALID_ARGUMENT when a name is needed.
  absl::StatusOr<std::shared_ptr<const ServedModel>> Find(std::string_view model, uint64_t version) const;

  const std::vector<std::shared_ptr<const ServedModel>>& models() const { return models_; }

 private:
  std::string Describe() const;

  std::vector<std::shared_ptr<const ServedModel>> models_;
  std::map<std::string, std::map<uint64_t, std::shared_ptr<const ServedModel>>, std::less<>> by_name_;
};

// Holds the table in use. Any thread.
class ModelRepository {
 public:
  // Loads the newest version of every model under `root`; all or nothing.
  static absl::StatusOr<std::unique_ptr<ModelRepository>> Load(const std::string& root,
                                                               const EvaluatingThreads& threads,
                                                               const ModelLoadOptions& options = {});

  std::shared_ptr<const ModelTable> table() const;

 private:
  friend class ModelTableReader;
  explicit ModelRepository(std::shared_ptr<const ModelTable> table) : table_(std::move(table)) {}

  mutable std::mutex mutex_;
  std::shared_ptr<const ModelTable> table_;  // guarded by mutex_
  std::atomic<uint64_t> generation_{1};      // changes with table_
};

// One thread's view of a repository: takes the lock only after the table has changed.
class ModelTableReader {
 public:
  explicit ModelTableReader(const ModelRepository& repository) : repository_(repository) {}

  // Good until the next call.
  const ModelTable& Get();

 private:
  const ModelRepository& repository_;
  uint64_t generation_ = 0;
  std::shared_ptr<const ModelTable> table_;
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_MODEL_REPOSITORY_H_
