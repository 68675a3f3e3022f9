#include "server/model_repository.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "model/status_macros.h"
#include "runtime/available_memory.h"
#include "server/log.h"

namespace hilomoe {
namespace {

namespace fs = std::filesystem;

constexpr char kModelFileName[] = "model.hilomoe";
// Of the available memory, that a copied file may take: packed weights and workspaces need some as well.
constexpr double kCopyShare = 0.9;

bool IsCopyUnderWay(const std::string& name) { return absl::StartsWith(name, ".") || absl::StrContains(name, ".tmp"); }

// Model names become label values and parts of messages.
bool IsModelName(const std::string& name) {
  return std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-' || c == '.';
  });
}

bool ParseVersion(const std::string& name, uint64_t* version) {
  return std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; }) &&
         absl::SimpleAtoi(name, version) && *version > 0;
}

// The names in a directory, sorted.
absl::StatusOr<std::vector<std::string>> ListNames(const fs::path& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    names.push_back(it->path().filename().string());
  }
  if (error) {
    return absl::NotFoundError(
        absl::StrCat("cannot list model repository directory '", directory.string(), "': ", error.message()));
  }
  std::sort(names.begin(), names.end());
  return names;
}

// Appends the newest version of the model in `directory`, if it has one.
absl::Status ListModel(const fs::path& directory, RepositoryListing* listing) {
  HILOMOE_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListNames(directory));
  ModelLocation newest{directory.filename().string(), 0, ""};
  for (const std::string& name : names) {
    if (IsCopyUnderWay(name)) continue;
    const fs::path path = directory / name;
    uint64_t version = 0;
    std::error_code error;
    if (!ParseVersion(name, &version)) {
      listing->skipped.push_back(absl::StrCat("'", path.string(), "': a version's name must be a positive number"));
    } else if (!fs::is_regular_file(path / kModelFileName, error)) {
      listing->skipped.push_back(absl::StrCat("'", path.string(), "': holds no ", kModelFileName));
    } else if (version == newest.version) {
      return absl::FailedPreconditionError(
          absl::StrCat("'", path.string(), "' and '", newest.path, "' are the same version; remove one"));
    } else if (version > newest.version) {
      newest.version = version;
      newest.path = (path / kModelFileName).string();
    }
  }
  if (newest.version > 0) {
    listing->models.push_back(std::move(newest));
  } else {
    listing->skipped.push_back(absl::StrCat("'", directory.string(), "': holds no version of a model"));
  }
  return absl::OkStatus();
}

// The one place where AUTO becomes one of the others. A file that cannot be looked at cannot be opened either.
FileMemory ChooseMemory(v1::ServerConfig::ModelMemory wanted, const std::string& path) {
  if (wanted == v1::ServerConfig::AUTO) {
    std::error_code error;
    const double bytes = static_cast<double>(fs::file_size(path, error));
    const bool fits = error || bytes <= kCopyShare * AvailableMemoryBytes();
    wanted = fits ? v1::ServerConfig::COPY : v1::ServerConfig::MMAP;
  }
  return wanted == v1::ServerConfig::MMAP ? FileMemory::kMap : FileMemory::kCopy;
}

double CreatedSeconds(const std::string& rfc3339) {
  absl::Time time;
  std::string error;
  return absl::ParseTime(absl::RFC3339_full, rfc3339, &time, &error) ? absl::ToDoubleSeconds(time - absl::UnixEpoch())
                                                                     : 0;
}

}  // namespace

absl::StatusOr<RepositoryListing> ListModels(const std::string& root) {
  HILOMOE_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListNames(root));
  RepositoryListing listing;
  for (const std::string& name : names) {
    const fs::path path = fs::path(root) / name;
    std::error_code error;
    if (IsCopyUnderWay(name) || !fs::is_directory(path, error)) continue;
    if (!IsModelName(name)) {
      listing.skipped.push_back(
          absl::StrCat("'", path.string(), "': a model's name is made of letters, digits, '_', '-' and '.'"));
      continue;
    }
    HILOMOE_RETURN_IF_ERROR(ListModel(path, &listing));
  }
  if (listing.models.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "model repository '", root, "' holds no model; expected ", root, "/<model>/<version>/", kModelFileName,
        listing.skipped.empty() ? "" : "; skipped ", absl::StrJoin(listing.skipped, ", ")));
  }
  return listing;
}

absl::StatusOr<std::shared_ptr<const ServedModel>> ServedModel::Load(const ModelLocation& location,
                                                                     const EvaluatingThreads& threads,
                                                                     const ModelLoadOptions& options) {
  const auto annotate = [&location](const absl::Status& status) {
    const bool named = absl::StrContains(status.message(), location.path);
    return absl::Status(status.code(),
                        absl::StrCat("cannot serve model '", location.model, "' version ", location.version,
                                     named ? "" : absl::StrCat(" (", location.path, ")"), ": ", status.message()));
  };
  const absl::Time start = absl::Now();
  const FileMemory memory = ChooseMemory(options.memory, location.path);
  absl::StatusOr<ModelFile> file = ModelFile::Open(location.path, {.memory = memory, .threads = options.threads});
  if (!file.ok()) return annotate(file.status());
  absl::StatusOr<std::unique_ptr<Predictor>> predictor = Predictor::Create(*std::move(file));
  if (!predictor.ok()) return annotate(predictor.status());
  const absl::Status golden = (*predictor)->CheckGolden();
  if (const absl::Status changed = (*predictor)->file().CheckUnchanged(); !changed.ok()) return annotate(changed);
  if (!golden.ok()) return annotate(golden);

  const std::shared_ptr<ServedModel> model(new ServedModel());
  model->predictor_ = *std::move(predictor);
  if (threads.team != nullptr) {
    model->helpers_ = std::make_unique<PredictorHelpers>(*model->predictor_, threads.team, threads.split_candidates);
  }
  for (int i = 0; i < threads.serving; ++i) {
    model->workspaces_.push_back(std::make_unique<Workspace>(*model->predictor_, model->helpers_.get()));
  }
  const v1::ModelFileHeader& header = model->predictor_->file().header();
  ModelFacts facts;
  facts.name = location.model;
  facts.version = location.version;
  facts.created_by = header.provenance().created_by();
  facts.instruction_set = model->predictor_->kernels().name;
  for (const FeatureSpec& feature : model->predictor_->file().spec().features()) facts.features.push_back(feature.name);
  facts.memory =
      v1::ServerConfig::ModelMemory_Name(memory == FileMemory::kMap ? v1::ServerConfig::MMAP : v1::ServerConfig::COPY);
  facts.bytes = model->predictor_->bytes();
  facts.created_seconds = CreatedSeconds(header.provenance().created());
  facts.loaded_seconds = absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch());
  facts.load_duration_seconds = absl::ToDoubleSeconds(absl::Now() - start);
  model->metrics_ = std::make_shared<const ModelMetrics>(std::move(facts), threads.serving);
  return std::shared_ptr<const ServedModel>(model);
}

absl::Status ServedModel::CheckIntact() const {
  if (!metrics_->broken()) {
    const absl::Status status = predictor_->file().CheckUnchanged();
    if (status.ok()) return status;
    if (metrics_->SetBroken()) {
      LogError("model broken", {{"model", name()}, {"version", version()}, {"error", std::string(status.message())}});
    }
  }
  return absl::UnavailableError(absl::StrCat("model '", name(), "' version ", version(),
                                             " is broken: its file was truncated or overwritten while it was mapped"));
}

ModelTable::ModelTable(std::vector<std::shared_ptr<const ServedModel>> models) : models_(std::move(models)) {
  for (const auto& model : models_) by_name_[model->name()][model->version()] = model;
}

absl::StatusOr<std::shared_ptr<const ServedModel>> ModelTable::Find(std::string_view model, uint64_t version) const {
  if (model.empty() && by_name_.size() != 1) {
    return absl::InvalidArgumentError(absl::StrCat("model: must be named; served are ", Describe()));
  }
  const auto found = model.empty() ? by_name_.begin() : by_name_.find(model);
  if (found == by_name_.end()) {
    const std::string shown = absl::Utf8SafeCEscape(absl::string_view(model.data(), model.size()));
    return absl::NotFoundError(absl::StrCat("model '", shown, "' is not served; served are ", Describe()));
  }
  const auto& versions = found->second;
  if (version == 0) return versions.rbegin()->second;
  const auto exact = versions.find(version);
  if (exact == versions.end()) {
    return absl::NotFoundError(
        absl::StrCat("model '", found->first, "' version ", version, " is not served; served are ", Describe()));
  }
  return exact->second;
}

std::string ModelTable::Describe() const {
  if (models_.empty()) return "none";
  return absl::StrJoin(models_, ", ", [](std::string* out, const auto& model) {
    absl::StrAppend(out, "'", model->name(), "' version ", model->version());
  });
}

absl::StatusOr<std::unique_ptr<ModelRepository>> ModelRepository::Load(const std::string& root,
                                                                       const EvaluatingThreads& threads,
                                                                       const ModelLoadOptions& options) {
  HILOMOE_ASSIGN_OR_RETURN(const RepositoryListing listing, ListModels(root));
  for (const std::string& skipped : listing.skipped) LogWarning("skipped in the model repository", {{"what", skipped}});
  std::vector<std::shared_ptr<const ServedModel>> models;
  for (const ModelLocation& location : listing.models) {
    HILOMOE_ASSIGN_OR_RETURN(std::shared_ptr<const ServedModel> model, ServedModel::Load(location, threads, options));
    const ModelFacts& facts = model->shared_metrics()->facts();
    LogInfo("loaded model", {{"model", facts.name},
                             {"version", facts.version},
                             {"path", location.path},
                             {"memory", facts.memory},
                             {"bytes", facts.bytes},
                             {"instruction_set", facts.instruction_set},
                             {"load_seconds", facts.load_duration_seconds}});
    models.push_back(std::move(model));
  }
  auto table = std::make_shared<const ModelTable>(std::move(models));
  return std::unique_ptr<ModelRepository>(new ModelRepository(std::move(table)));
}

std::shared_ptr<const ModelTable> ModelRepository::table() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return table_;
}

const ModelTable& ModelTableReader::Get() {
  const uint64_t generation = repository_.generation_.load(std::memory_order_acquire);
  if (generation != generation_) {
    // The table may be newer than the generation read; the next call then takes the lock once more, for nothing.
    table_ = repository_.table();
    generation_ = generation;
  }
  return *table_;
}

}  // namespace hilomoe
