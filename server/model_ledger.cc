#include "server/model_ledger.h"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/log.h"
#include "server/model_policy.h"

namespace hilomoe {
namespace {

constexpr char kNotThere[] = "it is not in the repository";
constexpr char kUnreadable[] = "its directory cannot be read";
constexpr char kBadPolicy[] = "its policy cannot be used";

// From the listing in which a failed file has changed to its next load: a file that is being copied changes from one
// listing to the next, and every one of these loads fails.
constexpr auto kChangedFileDelay = std::chrono::milliseconds(500);

double NowSeconds() { return absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()); }

std::string Message(const absl::Status& status) { return std::string(status.message()); }

// For who sends requests: no paths.
std::string PublicMessage(const absl::Status& status) {
  return absl::StrCat("it could not be loaded (", absl::StatusCodeToString(status.code()),
                      "), which is tried again; the server's log says why");
}

// A state that comes and goes is logged when it comes.
void LogIfNew(const absl::Status& before, const absl::Status& now, std::string_view message, const std::string& what) {
  if (!now.ok() && now != before) LogError(message, {{"what", what}, {"error", Message(now)}});
}

}  // namespace

ModelLedger::ModelLedger(const Options& options) : options_(options) {
  for (const v1::ModelPolicy& policy : options_.policies) {
    Model& model = models_[policy.name()];
    model.configured = true;
    model.policy = policy;
  }
}

void ModelLedger::Update(const absl::StatusOr<RepositoryListing>& listing, Clock::time_point now) {
  absl::Status status = listing.status();
  const bool serves = std::any_of(models_.begin(), models_.end(), [](const auto& model) {
    return std::any_of(model.second.versions.begin(), model.second.versions.end(),
                       [](const auto& version) { return version.second.served != nullptr; });
  });
  if (status.ok() && listing->models.empty() && serves) {
    status = absl::NotFoundError("the model repository holds no model any more; is it still mounted?");
  }
  LogIfNew(root_status_, status, "the model repository cannot be read; what is served stays", "model_repository");
  if (status.ok() && !root_status_.ok()) LogInfo("the model repository can be read again");
  root_status_ = status;
  if (!status.ok()) return;

  for (auto& [name, model] : models_) model.present = false;
  for (const auto& [name, listed] : listing->models) {
    // A folder that has to do with models in no way shall not become one.
    const bool is_model = !listed.versions.empty() || listed.policy.has_value() || !listed.status.ok();
    if (is_model || Knows(name)) UpdateModel(name, listed, now, &models_[name]);
  }
  static const ListedModel kNothing;
  for (auto& [name, model] : models_) {
    if (!model.present) {
      UpdateModel(name, kNothing, now, &model);
      model.present = false;
    }
    Choose(&model);
  }
}

void ModelLedger::UpdateModel(const std::string& name, const ListedModel& listed, Clock::time_point now, Model* model) {
  model->present = true;
  LogIfNew(model->listing_status, listed.status, "a model's directory cannot be read; what is served stays", name);
  model->listing_status = listed.status;
  if (!listed.status.ok()) return;
  UpdatePolicy(listed.policy, model);
  for (auto& [version, entry] : model->versions) entry.file.reset();
  for (const auto& [version, file] : listed.versions) {
    Version& entry = model->versions[version];
    entry.file = file;
    if (entry.IsCurrent()) entry.failures = 0;  // what failed is gone, and what is served lies there again
    RetryChangedFile(now, &entry);
  }
}

// The version stays one that has failed, and is passed over where another one can be served.
void ModelLedger::RetryChangedFile(Clock::time_point now, Version* entry) {
  if (entry->failures == 0 || !entry->file || entry->file->identity == entry->failed_identity) return;
  const bool in_place = entry->file->identity.device == entry->failed_identity.device &&
                        entry->file->identity.inode == entry->failed_identity.inode;
  entry->retry_at = std::min(entry->retry_at, in_place ? now + kChangedFileDelay : now);
}

void ModelLedger::UpdatePolicy(const std::optional<ListedPolicy>& listed, Model* model) {
  if (model->configured) return;
  if (!listed) {
    model->policy = options_.default_policy;
    model->policy_text.reset();
    model->policy_status = absl::OkStatus();
    return;
  }
  absl::Status status = listed->text.status();
  if (status.ok()) {
    if (model->policy_text == *listed->text) return;
    absl::StatusOr<v1::ModelPolicy> policy = ParseModelPolicy(*listed->text, listed->path);
    status = policy.status();
    if (status.ok()) model->policy = *std::move(policy);
    model->policy_text = *listed->text;
  } else {
    model->policy_text.reset();  // so that the same text ends this status
  }
  LogIfNew(model->policy_status, status, "a model's policy cannot be used; the last good one stays", listed->path);
  model->policy_status = status;
}

void ModelLedger::Resume(const std::string& name) {
  Model& model = models_.at(name);
  model.unloaded = false;
  for (auto& [version, entry] : model.versions) entry.failures = 0;
  Choose(&model);
}

void ModelLedger::RetryForMemory() {
  for (auto& [name, model] : models_) {
    for (auto& [version, entry] : model.versions) {
      if (absl::IsResourceExhausted(entry.error)) entry.retry_at = Clock::time_point::min();
    }
  }
}

bool ModelLedger::MustLoad(const Model& model, uint64_t version) {
  if (model.unloaded || model.choice.attempt.count(version) == 0) return false;
  const auto found = model.versions.find(version);
  return found != model.versions.end() && found->second.file && !found->second.IsCurrent();
}

std::optional<ModelLedger::LoadJob> ModelLedger::NextLoad(Clock::time_point now) {
  std::optional<LoadJob> best;
  Version* best_entry = nullptr;
  std::tuple<bool, bool> best_rank;
  for (auto& [name, model] : models_) {
    const bool serves = std::any_of(model.versions.begin(), model.versions.end(),
                                    [](const auto& version) { return version.second.served != nullptr; });
    for (auto it = model.versions.rbegin(); it != model.versions.rend(); ++it) {
      auto& [version, entry] = *it;
      if (entry.loading || !MustLoad(model, version) || (entry.failures > 0 && entry.retry_at > now)) continue;
      const std::tuple<bool, bool> rank(entry.failures > 0, serves);
      if (best && rank >= best_rank) continue;
      best = LoadJob{{name, version, entry.file->path}, *entry.file};
      best_entry = &entry;
      best_rank = rank;
    }
  }
  if (!best) return best;
  best_entry->loading = true;
  if (best_entry->served == nullptr && best_entry->state != ModelState::kLoading) {
    best_entry->state = ModelState::kLoading;
    best_entry->since_seconds = NowSeconds();
  }
  return best;
}

bool ModelLedger::IsWanted(const ModelLocation& location) const {
  const auto model = models_.find(location.model);
  return model != models_.end() && MustLoad(model->second, location.version);
}

void ModelLedger::FinishLoad(const LoadJob& job, absl::StatusOr<std::shared_ptr<const ServedModel>> loaded,
                             Clock::time_point now) {
  Model& model = models_.at(job.location.model);
  Version& entry = model.versions.at(job.location.version);
  entry.loading = false;
  if (absl::IsCancelled(loaded.status())) return;
  if (!loaded.ok()) {
    ++model.load_failures;
    entry.error = loaded.status();
    entry.failed_identity = job.file.identity;
    entry.retry_at = now + RetryDelay(entry.failures++);
    RetryChangedFile(now, &entry);
    LogError("cannot load model", {{"model", job.location.model},
                                   {"version", job.location.version},
                                   {"error", Message(entry.error)},
                                   {"failures", entry.failures},
                                   {"retry_in_seconds", std::chrono::duration<double>(entry.retry_at - now).count()}});
    Choose(&model);
    return;
  }
  if (!IsWanted(job.location)) {
    LogInfo("a loaded model is not wanted any more",
            {{"model", job.location.model}, {"version", job.location.version}});
    return;
  }
  if (entry.served != nullptr) Drop(job.location.model, job.location.version, &entry);
  entry.served = *std::move(loaded);
  entry.served_identity = job.file.identity;
  entry.error = absl::OkStatus();
  entry.failures = 0;
  const ModelFacts& facts = entry.served->shared_metrics()->facts();
  LogInfo("loaded model", {{"model", facts.name},
                           {"version", facts.version},
                           {"path", job.location.path},
                           {"memory", facts.memory},
                           {"bytes", facts.bytes},
                           {"instruction_set", facts.instruction_set},
                           {"load_seconds", facts.load_duration_seconds}});
}

ModelLedger::Clock::duration ModelLedger::RetryDelay(uint32_t failures_before) const {
  const double doublings = std::min(failures_before, 64U);
  const std::chrono::duration<double> delay = options_.retry_min;
  const std::chrono::duration<double> most = options_.retry_max;
  return std::chrono::duration_cast<Clock::duration>(std::min(most, delay * std::exp2(doublings)));
}

ModelLedger::Clock::time_point ModelLedger::NextRetry() const {
  Clock::time_point next = Clock::time_point::max();
  for (const auto& [name, model] : models_) {
    for (const auto& [version, entry] : model.versions) {
      if (!entry.loading && entry.failures > 0 && MustLoad(model, version)) next = std::min(next, entry.retry_at);
    }
  }
  return next;
}

bool ModelLedger::IsSettled(const std::string& name, Clock::time_point now) const {
  const auto model = models_.find(name);
  if (model == models_.end()) return true;
  return std::none_of(model->second.versions.begin(), model->second.versions.end(), [&](const auto& version) {
    const Version& entry = version.second;
    if (entry.loading) return true;
    if (!MustLoad(model->second, version.first)) return false;
    return entry.failures == 0 || entry.retry_at <= now || !(entry.file->identity == entry.failed_identity);
  });
}

absl::Status ModelLedger::LoadError(const std::string& name) const {
  const auto found = models_.find(name);
  if (found == models_.end()) return absl::NotFoundError(absl::StrCat("model '", name, "': ", kNotThere));
  const Model& model = found->second;
  if (model.unloaded) {
    return absl::AbortedError(absl::StrCat("model '", name, "': it was unloaded by request meanwhile"));
  }
  if (!root_status_.ok()) return absl::UnavailableError(root_status_.message());
  if (!model.listing_status.ok()) return model.listing_status;
  if (!model.policy_status.ok()) return model.policy_status;
  if (model.choice.attempt.empty()) return absl::NotFoundError(absl::StrCat("model '", name, "' has no version"));
  for (auto it = model.choice.attempt.rbegin(); it != model.choice.attempt.rend(); ++it) {
    const auto version = model.versions.find(*it);
    if (version == model.versions.end() || (version->second.served == nullptr && !version->second.file)) {
      return absl::NotFoundError(absl::StrCat("model '", name, "' version ", *it, ": ", kNotThere));
    }
    if (!version->second.IsCurrent() && !version->second.error.ok()) return version->second.error;
  }
  return absl::OkStatus();
}

void ModelLedger::Choose(Model* model) {
  model->choice = {};
  if (!model->policy) return;
  std::set<uint64_t> present;
  for (const auto& [version, entry] : model->versions) {
    if (entry.file) present.insert(version);
  }
  model->choice = ChooseVersions(*model->policy, present, [model](uint64_t version) {
    const Version& entry = model->versions.at(version);
    return entry.served == nullptr && entry.failures > 0;
  });
}

void ModelLedger::Drop(const std::string& name, uint64_t version, Version* entry) {
  draining_.push_back({name, version, entry->served, NowSeconds()});
  entry->served.reset();
}

void ModelLedger::DropBroken(const std::string& name, Model* model) {
  for (auto& [version, entry] : model->versions) {
    if (entry.served == nullptr || !entry.served->broken()) continue;
    const absl::Status intact = entry.served->CheckIntact();
    ++model->breakages;
    LogError("model broken", {{"model", name}, {"version", version}, {"error", Message(intact)}});
    entry.error = intact;
    entry.failures = 0;  // what lies there now may be good
    Drop(name, version, &entry);
  }
}

void ModelLedger::DropUnwanted(const std::string& name, Model* model) {
  Choose(model);
  bool all_served = true, all_present_served = true;
  for (const uint64_t version : model->choice.serve) {
    const auto entry = model->versions.find(version);
    const bool present = entry != model->versions.end() && entry->second.file;
    const bool served = entry != model->versions.end() && entry->second.served != nullptr;
    all_served = all_served && present && served;
    all_present_served = all_present_served && (!present || served);
  }
  for (auto& [version, entry] : model->versions) {
    if (entry.served == nullptr) continue;
    const bool chosen = model->choice.serve.count(version) > 0;
    const bool stays = !model->unloaded && (entry.file ? chosen || !all_served : !all_present_served);
    if (stays) continue;
    LogInfo("model taken out of service", {{"model", name}, {"version", version}});
    Drop(name, version, &entry);
  }
}

void ModelLedger::MoveLabels(const std::string& name, Model* model) {
  std::map<std::string, uint64_t, std::less<>> labels;
  const auto is_served = [model](uint64_t version) {
    const auto entry = model->versions.find(version);
    return entry != model->versions.end() && entry->second.served != nullptr;
  };
  const int count = model->policy ? model->policy->labels_size() : 0;
  for (int i = 0; i < count; ++i) {
    const v1::ModelPolicy::Label& label = model->policy->labels(i);
    const auto before = model->labels.find(label.name());
    const bool stays = !is_served(label.version()) && before != model->labels.end() && is_served(before->second);
    const uint64_t version = stays ? before->second : label.version();
    labels[label.name()] = version;
    if (is_served(version) && (before == model->labels.end() || before->second != version)) {
      LogInfo("label set", {{"model", name}, {"label", label.name()}, {"version", version}});
    }
  }
  model->labels = std::move(labels);
}

ModelTable::Models ModelLedger::Settle() {
  ModelTable::Models table;
  for (auto& [name, model] : models_) {
    DropBroken(name, &model);
    DropUnwanted(name, &model);
    MoveLabels(name, &model);
    std::erase_if(model.versions, [&model = model](const auto& version) {
      const Version& entry = version.second;
      return !entry.file && !entry.served && !entry.loading && model.choice.serve.count(version.first) == 0;
    });
    for (const uint64_t version : model.choice.serve) model.versions[version];  // those that are named and not there
    for (auto& [version, entry] : model.versions) {
      const ModelState state = StateOf(model, version, entry);
      if (state != entry.state || entry.since_seconds == 0) entry.since_seconds = NowSeconds();
      entry.state = state;
    }
  }
  std::erase_if(models_, [](const auto& model) {
    return !model.second.present && !model.second.configured && !model.second.unloaded && model.second.versions.empty();
  });
  for (const auto& [name, model] : models_) {
    ModelTable::Model& shown = table[name];
    shown.labels = model.labels;
    for (const auto& [version, entry] : model.versions) {
      if (entry.served != nullptr) {
        shown.versions[version] = entry.served;
        continue;
      }
      if (model.choice.attempt.count(version) > 0) {
        const std::string reason = ReasonOf(model, version, entry, PublicMessage);
        shown.unavailable[version] = reason;
        shown.reason = absl::StrCat("version ", version, ": ", reason);  // the newest one's
      }
    }
    if (!model.listing_status.ok() && shown.reason.empty()) shown.reason = kUnreadable;
    if (!model.policy && shown.reason.empty()) shown.reason = kBadPolicy;
    if (shown.reason.empty()) shown.reason = "it has no version";
  }
  std::erase_if(draining_, [](const Draining& draining) { return draining.served.expired(); });
  return table;
}

ModelState ModelLedger::StateOf(const Model& model, uint64_t version, const Version& entry) {
  if (entry.served != nullptr) return ModelState::kAvailable;
  if (entry.loading) return ModelState::kLoading;
  if (model.unloaded || model.choice.attempt.count(version) == 0) return ModelState::kUnloaded;
  return entry.file && entry.failures == 0 ? ModelState::kLoading : ModelState::kFailed;
}

std::string ModelLedger::ReasonOf(const Model& model, uint64_t version, const Version& entry,
                                  std::string (*describe)(const absl::Status&)) {
  if (model.unloaded && entry.served == nullptr) return "it was unloaded by request";
  if (entry.served == nullptr && model.choice.attempt.count(version) == 0) return "the policy does not choose it";
  if (!entry.file) return kNotThere;
  if (entry.IsCurrent()) return "";
  if (!entry.error.ok()) return describe(entry.error);
  return entry.served == nullptr ? "it is being loaded" : "its new file is being loaded";
}

std::map<uint64_t, ModelStatus> ModelLedger::VersionStatuses(const std::string& name, const Model& model) {
  std::map<uint64_t, ModelStatus> statuses;
  for (const auto& [version, entry] : model.versions) {
    ModelStatus& status = statuses[version];
    status = {.model = name,
              .version = version,
              .state = entry.state,
              .reason = ReasonOf(model, version, entry, Message),
              .public_reason = ReasonOf(model, version, entry, PublicMessage),
              .since_seconds = entry.since_seconds,
              .failures = entry.failures};
    for (const auto& [label, target] : model.labels) {
      if (target == version && entry.served != nullptr) status.labels.push_back(label);
    }
  }
  return statuses;
}

std::vector<ModelStatus> ModelLedger::Index() const {
  std::vector<ModelStatus> index;
  const auto add_error = [&index](const std::string& name, const absl::Status& status, const char* what) {
    if (status.ok()) return;
    index.push_back({.model = name,
                     .state = ModelState::kFailed,
                     .reason = Message(status),
                     .public_reason = absl::StrCat(what, "; the server's log says why")});
  };
  add_error("", root_status_, "the model repository cannot be read");
  std::map<std::string, std::map<uint64_t, ModelStatus>> versions;
  for (const auto& [name, model] : models_) versions[name] = VersionStatuses(name, model);
  // Of models that are gone as well.
  for (const Draining& draining : draining_) {
    if (draining.served.expired()) continue;
    const auto [status, added] = versions[draining.model].try_emplace(draining.version);
    if (!added && status->second.state != ModelState::kUnloaded) continue;
    status->second = {.model = draining.model,
                      .version = draining.version,
                      .state = ModelState::kUnloading,
                      .reason = "requests are under way",
                      .public_reason = "requests are under way",
                      .since_seconds = draining.since_seconds};
  }
  for (auto& [name, statuses] : versions) {
    if (const auto model = models_.find(name); model != models_.end()) {
      add_error(name, model->second.listing_status, kUnreadable);
      add_error(name, model->second.policy_status, kBadPolicy);
    }
    for (auto& [version, status] : statuses) index.push_back(std::move(status));
  }
  return index;
}

std::vector<ModelCounts> ModelLedger::Counts() const {
  std::vector<ModelCounts> counts;
  for (const auto& [name, model] : models_) {
    counts.push_back({.model = name, .load_failures = model.load_failures, .breakages = model.breakages});
  }
  return counts;
}

}  // namespace hilomoe
