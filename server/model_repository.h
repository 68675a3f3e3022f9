// Keeps the models of <root>/<model>/<version>/model.hilomoe in service while files and policies come and go.
#ifndef HILOMOE_SERVER_MODEL_REPOSITORY_H_
#define HILOMOE_SERVER_MODEL_REPOSITORY_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hilomoe/v1/server_config.pb.h"
#include "runtime/available_memory.h"
#include "server/model_status.h"
#include "server/model_table.h"
#include "server/served_model.h"

namespace hilomoe {

struct ModelRepositoryOptions {
  std::string root = {};
  EvaluatingThreads threads = {};
  v1::ServerConfig::ModelMemory memory = v1::ServerConfig::AUTO;
  int start_threads = 1;  // that read and verify a file before anything is served; later one does
  uint32_t latest_versions = 1;
  std::vector<v1::ModelPolicy> policies = {};  // win over those in the repository
  std::chrono::milliseconds poll_interval{5000};
  std::chrono::milliseconds retry_min{1000}, retry_max{300'000};
  bool allow_no_models = false;
  bool load_at_idle_priority = true;
  std::function<double()> available_memory = AvailableMemoryBytes;

  // What the config says; `threads` and `start_threads` remain to be set.
  static ModelRepositoryOptions From(const v1::ServerConfig& config);
};

// Load beside -> checksums -> golden rows -> warm-up -> publish -> drain: a version that is to go stays until those
// that are to be served are, and is destroyed, off the serving threads, when its last request has ended. What fails is
// tried again, and what was served before is served on.
//
// All methods: any thread.
class ModelRepository {
 public:
  // Loads what the policies ask for. NOT_FOUND and the like for a root that cannot be read; unless allow_no_models,
  // the first model's error when none can be served. Then keeps on looking until Stop.
  static absl::StatusOr<std::unique_ptr<ModelRepository>> Start(ModelRepositoryOptions options);
  ~ModelRepository();

  std::shared_ptr<const ModelTable> table() const;

  // Every model and version that is known, by name and version: those in the repository, those served, those that a
  // policy names, and those still under way out.
  std::vector<ModelStatus> Index() const;
  // Of every model that is known, by name.
  std::vector<ModelCounts> Counts() const;

  // Of memory that a replaced version has left for the next one.
  size_t spare_bytes() const;

  // Makes the policy's versions of the model served as they now lie in the repository, after Unload or a failure too,
  // without waiting for a retry's time. Returns when that is done. NOT_FOUND for a model that the repository does not
  // have, UNAVAILABLE while that is unknown, ABORTED when it was unloaded meanwhile; else the error of the newest
  // version that failed.
  // `abandoned` is asked now and then; true ends the wait with CANCELLED.
  absl::Status Load(const std::string& model, const std::function<bool()>& abandoned = nullptr);
  // Takes the model out of service, and keeps it so until Load, whatever happens in the repository; not beyond this
  // process. Returns when no request finds it any more; those under way end as usual. NOT_FOUND as for Load.
  absl::Status Unload(const std::string& model, const std::function<bool()>& abandoned = nullptr);

  // `changed` is called at once, and on the repository's thread whenever the table or what Index says has changed, one
  // call at a time. It may call table, Index and Counts, not Load, Unload, Listen or Stop. Never again once Stop has
  // returned.
  void Listen(std::function<void()> changed);

  // From now on nothing is loaded, unloaded or told; what is served is served on. A load under way is given up.
  void Stop();

 private:
  friend class ModelTableReader;
  class Keeper;
  explicit ModelRepository(std::unique_ptr<Keeper> keeper);

  const std::unique_ptr<Keeper> keeper_;
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_MODEL_REPOSITORY_H_
