// Keeps the models of <root>/<model>/<version>/model.hilomoe in service while files and policies come and go.
#ifndef HILOMOE_SERVER_MODEL_REPOSITORY_H_
#define HILOMOE_SERVER_MODEL_REPOSITORY_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hilomoe/v1/server_config.pb.h"
#include "runtime/available_memory.h"
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

enum class ModelState {
  kUnloaded,   // in the repository, but not to be served: policy or Unload say so
  kLoading,    // or waiting for its turn
  kAvailable,  // served
  kUnloading,  // not found by requests any more, but some are still under way
  kFailed,     // should be served and cannot be; tried again
};
const char* ModelStateName(ModelState state);  // "UNLOADED", ...

// What is known about one version.
struct ModelStatus {
  std::string model;
  uint64_t version = 0;  // 0: about the model as a whole
  ModelState state = ModelState::kUnloaded;
  std::string reason;               // why it is in this state; of kAvailable: why it is not the newest file or policy
  std::vector<std::string> labels;  // that lead to it now
  double since_seconds = 0;         // when it came into this state, since the epoch
  uint32_t failures = 0;            // loads of this file that failed, one after another
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

  // Makes the policy's versions of the model served as they now lie in the repository, after Unload or a failure too,
  // without waiting for a retry's time. Returns when that is done. NOT_FOUND for a model that the repository does not
  // have; else the error of the newest version that failed.
  absl::Status Load(const std::string& model);
  // Takes the model out of service, and keeps it so until Load, whatever happens in the repository; not beyond this
  // process. Returns when no request finds it any more; those under way end as usual. NOT_FOUND as for Load.
  absl::Status Unload(const std::string& model);

  // `changed` is called on the repository's thread, now and whenever the table or a state of Index has changed; it may
  // call table and Index, not Load, Unload or Stop. Never again once Stop has returned.
  void Listen(std::function<void()> changed);

  // From now on nothing is loaded, unloaded or told; what is served is served on. A load under way is given up.
  void Stop();

 private:
  friend class ModelTableReader;
  struct State;
  explicit ModelRepository(std::unique_ptr<State> state);
  const PublishedModelTable& published() const;

  const std::unique_ptr<State> state_;
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_MODEL_REPOSITORY_H_
