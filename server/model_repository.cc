#include "server/model_repository.h"

#include <map>
#include <mutex>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/status_macros.h"
#include "server/log.h"
#include "server/repository_listing.h"

namespace hilomoe {

const char* ModelStateName(ModelState state) {
  switch (state) {
    case ModelState::kUnloaded:
      return "UNLOADED";
    case ModelState::kLoading:
      return "LOADING";
    case ModelState::kAvailable:
      return "AVAILABLE";
    case ModelState::kUnloading:
      return "UNLOADING";
    case ModelState::kFailed:
      return "FAILED";
  }
  return "";
}

ModelRepositoryOptions ModelRepositoryOptions::From(const v1::ServerConfig& config) {
  ModelRepositoryOptions options;
  options.root = config.model_repository();
  options.memory = config.model_memory();
  options.latest_versions = config.latest_versions();
  options.policies.assign(config.models().begin(), config.models().end());
  options.poll_interval = std::chrono::milliseconds(config.poll_interval_ms());
  options.retry_min = std::chrono::milliseconds(config.load_retry_min_ms());
  options.retry_max = std::chrono::milliseconds(config.load_retry_max_ms());
  options.allow_no_models = config.allow_no_models();
  options.load_at_idle_priority = config.load_at_idle_priority();
  return options;
}

struct ModelRepository::State {
  void Publish() {
    ModelTable::Models models;
    for (const auto& [name, model] : loaded) {
      ModelTable::Model& entry = models[name];
      if (unloaded.count(name) > 0) {
        entry.reason = "it was unloaded";
      } else {
        entry.versions[model->version()] = model;
      }
    }
    table.Publish(std::make_shared<const ModelTable>(std::move(models)));
  }

  PublishedModelTable table;
  std::mutex mutex;
  std::map<std::string, std::shared_ptr<const ServedModel>> loaded;
  std::set<std::string> unloaded;
  std::function<void()> changed;
};

absl::StatusOr<std::unique_ptr<ModelRepository>> ModelRepository::Start(ModelRepositoryOptions options) {
  HILOMOE_ASSIGN_OR_RETURN(const RepositoryListing listing, ListRepository(options.root));
  for (const std::string& skipped : listing.skipped) LogWarning("skipped in the model repository", {{"what", skipped}});
  auto state = std::make_unique<State>();
  for (const auto& [name, model] : listing.models) {
    if (model.versions.empty()) continue;
    const auto& [version, file] = *model.versions.rbegin();
    HILOMOE_ASSIGN_OR_RETURN(state->loaded[name],
                             ServedModel::Load({name, version, file.path}, options.threads,
                                               {.memory = options.memory, .threads = options.start_threads}));
    LogInfo("loaded model", {{"model", name}, {"version", version}});
  }
  if (state->loaded.empty() && !options.allow_no_models) {
    return absl::FailedPreconditionError(absl::StrCat("model repository '", options.root, "' holds no model; expected ",
                                                      options.root, "/<model>/<version>/model.hilomoe",
                                                      listing.skipped.empty() ? "" : "; skipped ",
                                                      absl::StrJoin(listing.skipped, ", ")));
  }
  state->Publish();
  return std::unique_ptr<ModelRepository>(new ModelRepository(std::move(state)));
}

ModelRepository::ModelRepository(std::unique_ptr<State> state) : state_(std::move(state)) {}
ModelRepository::~ModelRepository() = default;

std::shared_ptr<const ModelTable> ModelRepository::table() const { return state_->table.Get(); }
const PublishedModelTable& ModelRepository::published() const { return state_->table; }

std::vector<ModelStatus> ModelRepository::Index() const {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  std::vector<ModelStatus> index;
  for (const auto& [name, model] : state_->loaded) {
    const bool unloaded = state_->unloaded.count(name) > 0;
    index.push_back({.model = name,
                     .version = model->version(),
                     .state = unloaded ? ModelState::kUnloaded : ModelState::kAvailable,
                     .reason = unloaded ? "it was unloaded" : "",
                     .labels = {},
                     .since_seconds = model->shared_metrics()->facts().loaded_seconds,
                     .failures = 0});
  }
  return index;
}

absl::Status ModelRepository::Load(const std::string& model) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  if (state_->loaded.count(model) == 0) return absl::NotFoundError("the repository holds no such model");
  state_->unloaded.erase(model);
  state_->Publish();
  if (state_->changed) state_->changed();
  return absl::OkStatus();
}

absl::Status ModelRepository::Unload(const std::string& model) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  if (state_->loaded.count(model) == 0) return absl::NotFoundError("the repository holds no such model");
  state_->unloaded.insert(model);
  state_->Publish();
  if (state_->changed) state_->changed();
  return absl::OkStatus();
}

void ModelRepository::Listen(std::function<void()> changed) {
  state_->changed = std::move(changed);
  state_->changed();
}

void ModelRepository::Stop() {}

ModelTableReader::ModelTableReader(const ModelRepository& repository) : ModelTableReader(repository.published()) {}

}  // namespace hilomoe
