#include "server/model_repository.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/directory_watch.h"
#include "server/disposal_thread.h"
#include "server/log.h"
#include "server/model_ledger.h"
#include "server/repository_listing.h"
#include "server/thread_priority.h"

namespace hilomoe {
namespace {

constexpr std::chrono::milliseconds kLookForAbandoned{100};

using Clock = ModelLedger::Clock;
using Loaded = absl::StatusOr<std::shared_ptr<const ServedModel>>;

ModelLedger::Options LedgerOptions(const ModelRepositoryOptions& options) {
  ModelLedger::Options result{{}, options.policies, options.retry_min, options.retry_max};
  result.default_policy.set_latest_versions(options.latest_versions);
  return result;
}

absl::Status UnknownModelError(const std::string& model, const absl::Status& root_status) {
  const std::string shown = absl::Utf8SafeCEscape(model);
  if (root_status.ok()) return absl::NotFoundError(absl::StrCat("the repository holds no model '", shown, "'"));
  return absl::UnavailableError(absl::StrCat(
      "model '", shown, "' is not known, and the model repository cannot be read: ", root_status.message()));
}

}  // namespace

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

// Three threads: the keeper's own looks through the repository, decides and publishes, and never does anything that
// takes long; one loads, one destroys.
class ModelRepository::Keeper {
 public:
  explicit Keeper(ModelRepositoryOptions options)
      : options_(std::move(options)),
        shared_(std::make_shared<Shared>()),
        disposal_(std::make_shared<DisposalThread>(options_.load_at_idle_priority,
                                                   [shared = shared_](const std::string& model) {
                                                     {
                                                       const std::lock_guard<std::mutex> lock(shared->mutex);
                                                       shared->disposed.push_back(model);
                                                     }
                                                     shared->watch.Wake();
                                                   })),
        ledger_(LedgerOptions(options_)) {}

  ~Keeper() {
    Stop();
    published_.Publish(std::make_shared<const ModelTable>(ModelTable::Models()));
    // Whoever still holds a model destroys it.
    disposal_->Stop();
  }

  absl::Status LoadAtStart();
  void StartThreads() {
    keeper_ = std::thread([this] { Keep(); });
    loader_ = std::thread([this] { RunLoads(); });
  }

  const PublishedModelTable& published() const { return published_; }
  size_t spare_bytes() const { return spare_->bytes(); }
  std::vector<ModelStatus> Index() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return ledger_.Index();
  }
  std::vector<ModelCounts> Counts() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return ledger_.Counts();
  }
  absl::Status Execute(const std::string& model, bool load, const std::function<bool()>& abandoned);
  void Listen(std::function<void()> changed);
  void Stop();

 private:
  // What models and the disposal thread hold, that may outlive the keeper.
  struct Shared {
    DirectoryWatch watch;
    // Of the models that were destroyed since it was last looked at.
    std::mutex mutex;
    std::vector<std::string> disposed;
  };
  struct Command {
    const std::string model;
    const bool load;
    bool listed = false;  // what is listed from now on was in the repository when it came, or has come since
    bool begun = false;
    std::optional<absl::Status> result;
  };

  // pacer: of the calling thread, between pieces of the file; null: nothing is served beside.
  Loaded LoadModel(const ModelLedger::LoadJob& job, int threads, WorkPacer* pacer);
  void Keep();
  absl::StatusOr<RepositoryListing> List();
  void LogSkipped(const std::vector<std::string>& skipped);
  // Takes account of all that has happened, and of a listing if there is one; without one, nothing is loaded.
  void Apply(const std::optional<absl::StatusOr<RepositoryListing>>& listing);
  void MarkCommands();
  void BeginCommands(bool listed);
  void AbortLoadsBefore(const Command& unload);
  void EndCommands();
  void GiveUpUnwanted();
  void Tell();
  std::chrono::milliseconds TimeToWait() const;
  void RunLoads();

  const ModelRepositoryOptions options_;
  const std::shared_ptr<Shared> shared_;
  const std::shared_ptr<DisposalThread> disposal_;
  // What a version that was replaced leaves behind is for the next one. Who takes a model out of service wants it back.
  const std::shared_ptr<SpareMemory> spare_ = std::make_shared<SpareMemory>();
  PublishedModelTable published_;

  mutable std::mutex mutex_;
  ModelLedger ledger_;                       // as all that follows, guarded by mutex_
  std::deque<Command*> commands_;            // of callers that wait
  std::optional<ModelLedger::LoadJob> job_;  // the loader's, from when it is given until its result is taken
  bool job_taken_ = false;                   // by the loader
  std::optional<Loaded> result_;             // of job_
  bool stopping_ = false;
  std::condition_variable command_done_, job_given_;

  std::atomic<bool> give_up_{false};  // the load under way
  std::set<std::string> skipped_;     // as logged last; of the keeper's thread
  Clock::time_point next_poll_;       // of the keeper's thread

  std::mutex listeners_mutex_;
  std::vector<std::function<void()>> listeners_;  // as told_, guarded by listeners_mutex_
  std::vector<ModelStatus> told_;
  std::shared_ptr<const ModelTable> told_table_;

  std::thread keeper_, loader_;
};

Loaded ModelRepository::Keeper::LoadModel(const ModelLedger::LoadJob& job, int threads, WorkPacer* pacer) {
  Loaded loaded = !job.file.status.ok()
                      ? job.file.status
                      : ServedModel::Load(job.location, options_.threads,
                                          {.memory = options_.memory,
                                           .threads = threads,
                                           .spare = spare_,
                                           .available_memory = options_.available_memory,
                                           .cancelled =
                                               [this, pacer] {
                                                 if (pacer != nullptr) pacer->Pause();
                                                 return give_up_.load(std::memory_order_relaxed);
                                               },
                                           .on_broken = [shared = shared_] { shared->watch.Wake(); },
                                           .dispose =
                                               [disposal = disposal_](std::unique_ptr<const ServedModel> model) {
                                                 disposal->Take(std::move(model));
                                               }});
  // A system call may be cancelled as well (ECANCELED), and that is a failure.
  if (absl::IsCancelled(loaded.status()) && !give_up_.load()) return absl::UnavailableError(loaded.status().message());
  return loaded;
}

absl::Status ModelRepository::Keeper::LoadAtStart() {
  const absl::StatusOr<RepositoryListing> listing = List();
  if (!listing.ok()) return listing.status();
  absl::Status first_error;
  const std::lock_guard<std::mutex> lock(mutex_);
  ledger_.Update(listing, Clock::now());
  // What has failed since is not due again by then.
  const Clock::time_point start = Clock::now();
  while (const std::optional<ModelLedger::LoadJob> job = ledger_.NextLoad(start)) {
    Loaded loaded = LoadModel(*job, options_.start_threads, nullptr);
    first_error.Update(loaded.status());
    ledger_.FinishLoad(*job, std::move(loaded), Clock::now());
  }
  auto table = std::make_shared<const ModelTable>(ledger_.Settle());
  spare_->Release();  // what a load that failed has left
  const bool serves = !table->models().empty();
  published_.Publish(std::move(table));
  if (serves || options_.allow_no_models) return absl::OkStatus();
  if (!first_error.ok()) return first_error;
  for (const ModelStatus& status : ledger_.Index()) {
    if (status.state == ModelState::kFailed) {
      return absl::FailedPreconditionError(
          absl::StrCat("model '", status.model, "'",
                       status.version > 0 ? absl::StrCat(" version ", status.version) : "", ": ", status.reason));
    }
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "model repository '", options_.root, "' holds no model; expected ", options_.root,
      "/<model>/<version>/model.hilomoe", skipped_.empty() ? "" : "; skipped ", absl::StrJoin(skipped_, ", ")));
}

void ModelRepository::Keeper::Keep() {
  NameThread("model keeper");
  while (true) {
    Apply(std::nullopt);  // what needs no look at the repository does not wait for a file system that hangs
    Tell();
    MarkCommands();
    Apply(List());
    Tell();
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (stopping_) return;
    }
    shared_->watch.Wait(TimeToWait());
  }
}

absl::StatusOr<RepositoryListing> ModelRepository::Keeper::List() {
  shared_->watch.Begin();
  absl::StatusOr<RepositoryListing> listing =
      ListRepository(options_.root, [this](const std::string& directory) { shared_->watch.Add(directory); });
  shared_->watch.End();
  next_poll_ = Clock::now() + options_.poll_interval;  // a pause, however long that took
  if (listing.ok()) LogSkipped(listing->skipped);
  return listing;
}

void ModelRepository::Keeper::LogSkipped(const std::vector<std::string>& skipped) {
  for (const std::string& what : skipped) {
    if (skipped_.count(what) == 0) LogWarning("skipped in the model repository", {{"what", what}});
  }
  skipped_ = {skipped.begin(), skipped.end()};
}

void ModelRepository::Keeper::Apply(const std::optional<absl::StatusOr<RepositoryListing>>& listing) {
  // Asks the file system, which may hang: not under the lock. The ledger sees what is found.
  for (const auto& model : published_.Get()->models()) static_cast<void>(model->CheckIntact());
  std::shared_ptr<const ModelTable> table;
  std::vector<std::string> gone;
  {
    const std::lock_guard<std::mutex> lock(shared_->mutex);
    gone.swap(shared_->disposed);
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (listing) ledger_.Update(*listing, Clock::now());
    if (!gone.empty()) ledger_.RetryForMemory();
    if (result_) {
      if (!result_->ok()) gone.push_back(job_->location.model);
      ledger_.FinishLoad(*job_, *std::move(result_), Clock::now());
      result_.reset();
      job_.reset();
    }
    BeginCommands(listing.has_value());
    table = std::make_shared<const ModelTable>(ledger_.Settle());
    GiveUpUnwanted();
    if (listing && !job_ && !stopping_) {
      job_ = ledger_.NextLoad(Clock::now());
      job_taken_ = false;
      give_up_.store(false);
      if (job_) job_given_.notify_one();
    }
  }
  const auto is_served = [&](const std::string& model) { return table->Find(model, 0).ok(); };
  if (!std::all_of(gone.begin(), gone.end(), is_served)) disposal_->Take(spare_->Release());
  // The old one goes with the last look into it, and a model with the last request for it.
  if (!(table->known() == published_.Get()->known())) published_.Publish(std::move(table));
  const std::lock_guard<std::mutex> lock(mutex_);
  EndCommands();
}

// Before a listing: a command is not answered from one that began before it came.
void ModelRepository::Keeper::MarkCommands() {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (Command* command : commands_) command->listed = true;
}

void ModelRepository::Keeper::BeginCommands(bool listed) {
  for (Command* command : commands_) {
    const bool known = ledger_.Knows(command->model);
    const bool needs_listing = command->load || !known;
    if (command->begun || (needs_listing && !(listed && command->listed))) continue;
    command->begun = true;
    if (!known) {
      command->result = UnknownModelError(command->model, ledger_.root_status());
    } else if (command->load) {
      LogInfo("load requested", {{"model", command->model}});
      ledger_.Resume(command->model);
    } else {
      LogInfo("unload requested", {{"model", command->model}});
      ledger_.Unload(command->model);
      AbortLoadsBefore(*command);
    }
  }
}

// Who asked first for a load, which waits for a listing, is not to undo what was asked for later.
void ModelRepository::Keeper::AbortLoadsBefore(const Command& unload) {
  for (Command* command : commands_) {
    if (command == &unload) return;
    if (command->model != unload.model || !command->load || command->begun) continue;
    command->begun = true;
    command->result = absl::AbortedError(absl::StrCat("model '", command->model, "': its unload was asked for since"));
  }
}

void ModelRepository::Keeper::EndCommands() {
  for (Command* command : commands_) {
    if (!command->begun || command->result) continue;
    if (command->load && !ledger_.IsSettled(command->model, Clock::now())) continue;
    command->result = command->load ? ledger_.LoadError(command->model) : absl::OkStatus();
  }
  const size_t before = commands_.size();
  std::erase_if(commands_, [](const Command* command) { return command->result.has_value(); });
  if (commands_.size() < before) command_done_.notify_all();
}

void ModelRepository::Keeper::GiveUpUnwanted() {
  if (job_ && !ledger_.IsWanted(job_->location)) give_up_.store(true);
}

void ModelRepository::Keeper::Tell() {
  std::vector<ModelStatus> index = Index();
  std::shared_ptr<const ModelTable> table = published_.Get();
  const std::lock_guard<std::mutex> lock(listeners_mutex_);
  if (index == told_ && table == told_table_) return;
  told_ = std::move(index);
  told_table_ = table;
  for (const auto& changed : listeners_) changed();
}

std::chrono::milliseconds ModelRepository::Keeper::TimeToWait() const {
  const Clock::time_point now = Clock::now();
  Clock::time_point until = next_poll_;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!job_) until = std::min(until, ledger_.NextRetry());
  }
  if (until <= now) return std::chrono::milliseconds(0);
  return std::chrono::ceil<std::chrono::milliseconds>(until - now);
}

void ModelRepository::Keeper::RunLoads() {
  NameThread("model loader");
  if (options_.load_at_idle_priority) LowerThreadPriority();
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    job_given_.wait(lock, [this] { return stopping_ || (job_ && !job_taken_); });
    if (stopping_) return;
    job_taken_ = true;
    const ModelLedger::LoadJob job = *job_;
    lock.unlock();
    WorkPacer pacer;
    Loaded loaded = LoadModel(job, /*threads=*/1, options_.load_at_idle_priority ? &pacer : nullptr);
    lock.lock();
    result_ = std::move(loaded);
    lock.unlock();  // so that nobody waits for it while this thread waits for time that is left over
    shared_->watch.Wake();
    lock.lock();
  }
}

absl::Status ModelRepository::Keeper::Execute(const std::string& model, bool load,
                                              const std::function<bool()>& abandoned) {
  Command command{.model = model, .load = load, .result = std::nullopt};
  std::unique_lock<std::mutex> lock(mutex_);
  if (stopping_) return absl::UnavailableError("the server is shutting down");
  commands_.push_back(&command);
  shared_->watch.Wake();
  const auto done = [&] { return command.result.has_value(); };
  while (!command_done_.wait_for(lock, kLookForAbandoned, done)) {
    if (!abandoned) continue;
    lock.unlock();  // it may do work of gRPC's
    const bool gone = abandoned();
    lock.lock();
    if (done()) break;
    if (!gone) continue;
    std::erase(commands_, &command);
    return absl::CancelledError("nobody waits for this any more; what was begun goes on");
  }
  return *command.result;
}

void ModelRepository::Keeper::Listen(std::function<void()> changed) {
  const std::lock_guard<std::mutex> lock(listeners_mutex_);
  changed();
  listeners_.push_back(std::move(changed));
}

void ModelRepository::Keeper::Stop() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (stopping_) return;
    stopping_ = true;
    give_up_.store(true);
  }
  job_given_.notify_all();
  shared_->watch.Wake();
  if (keeper_.joinable()) keeper_.join();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (Command* command : commands_) command->result = absl::UnavailableError("the server is shutting down");
    commands_.clear();
  }
  command_done_.notify_all();
  if (loader_.joinable()) loader_.join();
  const std::lock_guard<std::mutex> lock(mutex_);
  result_.reset();
}

absl::StatusOr<std::unique_ptr<ModelRepository>> ModelRepository::Start(ModelRepositoryOptions options) {
  auto keeper = std::make_unique<Keeper>(std::move(options));
  if (const absl::Status status = keeper->LoadAtStart(); !status.ok()) return status;
  keeper->StartThreads();
  return std::unique_ptr<ModelRepository>(new ModelRepository(std::move(keeper)));
}

ModelRepository::ModelRepository(std::unique_ptr<Keeper> keeper) : keeper_(std::move(keeper)) {}
ModelRepository::~ModelRepository() = default;

std::shared_ptr<const ModelTable> ModelRepository::table() const { return keeper_->published().Get(); }
std::vector<ModelStatus> ModelRepository::Index() const { return keeper_->Index(); }
std::vector<ModelCounts> ModelRepository::Counts() const { return keeper_->Counts(); }
size_t ModelRepository::spare_bytes() const { return keeper_->spare_bytes(); }
absl::Status ModelRepository::Load(const std::string& model, const std::function<bool()>& abandoned) {
  return keeper_->Execute(model, /*load=*/true, abandoned);
}
absl::Status ModelRepository::Unload(const std::string& model, const std::function<bool()>& abandoned) {
  return keeper_->Execute(model, /*load=*/false, abandoned);
}
void ModelRepository::Listen(std::function<void()> changed) { keeper_->Listen(std::move(changed)); }
void ModelRepository::Stop() { keeper_->Stop(); }

ModelTableReader::ModelTableReader(const ModelRepository& repository)
    : ModelTableReader(repository.keeper_->published()) {}

}  // namespace hilomoe
