// What is known of every model and version, and what follows from it: what to load next, what to serve, what to tell.
#ifndef HILOMOE_SERVER_MODEL_LEDGER_H_
#define HILOMOE_SERVER_MODEL_LEDGER_H_

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hilomoe/v1/server_config.pb.h"
#include "server/model_policy.h"
#include "server/model_status.h"
#include "server/model_table.h"
#include "server/repository_listing.h"

namespace hilomoe {

// Neither reads files nor starts threads: it is told of listings, commands and loads, and keeps the account. The rules:
// * A version is loaded when the model's policy chooses it (ChooseVersions) and its file is not the one that is served.
// * A served version that the policy does not choose (any more) stays until all that it chooses are served; one that is
//   no longer in the repository stays until all chosen ones that are there are served. One that is broken, or of a
//   model that was unloaded, goes at once.
// * A repository that cannot be read, or that holds no model all of a sudden, is taken for one that is out of reach,
//   and so is a model's directory that cannot be read: what is served stays.
// * A failed load is tried again when its time has come. Where its file has changed that is soon, and where another one
//   was renamed into its place, at once.
//
// Not thread-safe.
class ModelLedger {
 public:
  using Clock = std::chrono::steady_clock;

  struct Options {
    v1::ModelPolicy default_policy;
    std::vector<v1::ModelPolicy> policies;  // named; win over those in the repository
    Clock::duration retry_min, retry_max;
  };
  struct LoadJob {
    ModelLocation location;
    ListedFile file;
  };

  explicit ModelLedger(const Options& options);

  // What the repository holds, or why that is unknown.
  void Update(const absl::StatusOr<RepositoryListing>& listing, Clock::time_point now);
  // Of the latest listing.
  const absl::Status& root_status() const { return root_status_; }
  bool Knows(const std::string& model) const { return models_.count(model) > 0; }
  // The model's versions go, and none is loaded until Resume.
  void Unload(const std::string& model) { models_.at(model).unloaded = true; }
  // Ends Unload; what has failed may be tried again at once.
  void Resume(const std::string& model);
  // Tries again at once what did not fit into memory.
  void RetryForMemory();

  // What to load next, which then counts as being loaded until FinishLoad: first what has not failed.
  std::optional<LoadJob> NextLoad(Clock::time_point now);
  // Whether a model that is being loaded is still to be served.
  bool IsWanted(const ModelLocation& location) const;
  void FinishLoad(const LoadJob& job, absl::StatusOr<std::shared_ptr<const ServedModel>> model, Clock::time_point now);
  // When a load that has failed may be tried again; none to be waited for: never.
  Clock::time_point NextRetry() const;
  // No load of the model is under way or could begin now, and what has failed lies there unchanged.
  bool IsSettled(const std::string& model, Clock::time_point now) const;
  // Of its newest version that should be served and is not, or not as it lies in the repository. ABORTED when the model
  // is unloaded.
  absl::Status LoadError(const std::string& model) const;

  // Applies all that has changed and returns what is served now. Models that are not served any more are held by
  // nobody here.
  ModelTable::Models Settle();

  std::vector<ModelStatus> Index() const;
  std::vector<ModelCounts> Counts() const;

 private:
  struct Version {
    std::optional<ListedFile> file;  // none: not in the repository
    std::shared_ptr<const ServedModel> served;
    FileIdentity served_identity;
    bool loading = false;
    // Of the latest attempt.
    absl::Status error;
    FileIdentity failed_identity;
    uint32_t failures = 0;  // one after another, of whatever files; 0: may be tried now
    Clock::time_point retry_at;
    // As told last.
    ModelState state = ModelState::kUnloaded;
    double since_seconds = 0;

    bool IsCurrent() const { return served != nullptr && (!file || served_identity == file->identity); }
  };
  struct Model {
    bool present = false;
    absl::Status listing_status;
    bool unloaded = false;
    bool configured = false;  // the policy is the server's own
    std::optional<std::string> policy_text;
    absl::Status policy_status;             // of the file: the policy is older when it failed
    std::optional<v1::ModelPolicy> policy;  // none: it could never be read, and nothing is loaded
    std::map<uint64_t, Version> versions;
    VersionChoice choice;
    std::map<std::string, uint64_t, std::less<>> labels;
    uint64_t load_failures = 0, breakages = 0;
  };
  struct Draining {
    std::string model;
    uint64_t version;
    std::weak_ptr<const ServedModel> served;
    double since_seconds;
  };

  Clock::duration RetryDelay(uint32_t failures_before) const;
  static bool MustLoad(const Model& model, uint64_t version);
  static void RetryChangedFile(Clock::time_point now, Version* entry);
  void UpdateModel(const std::string& name, const ListedModel& listed, Clock::time_point now, Model* model);
  void UpdatePolicy(const std::optional<ListedPolicy>& listed, Model* model);
  static void Choose(Model* model);
  void DropBroken(const std::string& name, Model* model);
  void DropUnwanted(const std::string& name, Model* model);
  void Drop(const std::string& name, uint64_t version, Version* entry);
  static void MoveLabels(const std::string& name, Model* model);
  static ModelState StateOf(const Model& model, uint64_t version, const Version& entry);
  // describe: says what a failed load is.
  static std::string ReasonOf(const Model& model, uint64_t version, const Version& entry,
                              std::string (*describe)(const absl::Status&));
  static std::map<uint64_t, ModelStatus> VersionStatuses(const std::string& name, const Model& model);

  const Options options_;
  absl::Status root_status_;
  std::map<std::string, Model> models_;
  std::vector<Draining> draining_;
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_MODEL_LEDGER_H_
