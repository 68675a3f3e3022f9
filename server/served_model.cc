#include "server/served_model.h"

#include <filesystem>
#include <new>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "model/status_macros.h"
#include "server/log.h"
#include "server/routing_metrics.h"
#include "server/warm_up.h"

namespace hilomoe {
namespace {

// Of the available memory, that a copied file may take: packed weights and workspaces need some as well.
constexpr double kCopyShare = 0.9;

// The one place where AUTO becomes one of the others. What is resident already, the version to be replaced among it, is
// not available any more, so that two versions are accounted for. A file that cannot be looked at cannot be opened
// either.
absl::StatusOr<FileMemory> ChooseMemory(const std::string& path, const ModelLoadOptions& options) {
  if (options.memory == v1::ServerConfig::MMAP) return FileMemory::kMap;
  std::error_code error;
  const uintmax_t bytes = std::filesystem::file_size(path, error);
  const double available =
      options.available_memory() + (options.spare != nullptr ? static_cast<double>(options.spare->bytes()) : 0);
  if (error || static_cast<double>(bytes) <= kCopyShare * available) return FileMemory::kCopy;
  if (options.memory == v1::ServerConfig::AUTO) return FileMemory::kMap;
  return absl::ResourceExhaustedError(absl::StrCat(
      "a copy takes ", bytes, " bytes, more than ", kCopyShare * 100, " % of the ", static_cast<uint64_t>(available),
      " that are available beside what is loaded already; give the process more memory, unload a model or "
      "set model_memory to AUTO or MMAP"));
}

double CreatedSeconds(const std::string& rfc3339) {
  absl::Time time;
  std::string error;
  return absl::ParseTime(absl::RFC3339_full, rfc3339, &time, &error) ? absl::ToDoubleSeconds(time - absl::UnixEpoch())
                                                                     : 0;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const ServedModel>> ServedModel::Load(const ModelLocation& location,
                                                                     const EvaluatingThreads& threads,
                                                                     const ModelLoadOptions& options) {
  absl::StatusOr<std::shared_ptr<const ServedModel>> model;
  try {
    model = LoadOrThrow(location, threads, options);
  } catch (const std::bad_alloc&) {
    model = absl::ResourceExhaustedError("not enough memory; give the process more, or unload a model");
  }
  if (model.ok()) return model;
  const absl::string_view message = model.status().message();
  const bool named = absl::StrContains(message, location.path);
  return absl::Status(model.status().code(),
                      absl::StrCat("cannot serve model '", location.model, "' version ", location.version,
                                   named ? "" : absl::StrCat(" (", location.path, ")"), ": ", message));
}

absl::StatusOr<std::shared_ptr<const ServedModel>> ServedModel::LoadOrThrow(const ModelLocation& location,
                                                                            const EvaluatingThreads& threads,
                                                                            const ModelLoadOptions& options) {
  const absl::Time start = absl::Now();
  HILOMOE_ASSIGN_OR_RETURN(const FileMemory memory, ChooseMemory(location.path, options));
  if (memory == FileMemory::kMap && options.spare != nullptr) options.spare->Release();  // the page cache needs it more
  HILOMOE_ASSIGN_OR_RETURN(ModelFile file, ModelFile::Open(location.path, {.memory = memory,
                                                                           .spare = options.spare,
                                                                           .threads = options.threads,
                                                                           .cancelled = options.cancelled}));
  HILOMOE_ASSIGN_OR_RETURN(std::unique_ptr<Predictor> predictor, Predictor::Create(std::move(file)));
  const absl::Status golden = predictor->CheckGolden();
  HILOMOE_RETURN_IF_ERROR(predictor->file().CheckUnchanged());
  HILOMOE_RETURN_IF_ERROR(golden);

  auto model = std::unique_ptr<ServedModel>(new ServedModel());
  model->predictor_ = std::move(predictor);
  const ModelSpec& spec = model->predictor_->file().spec();
  model->routing_ = std::make_shared<RoutingStatistics>(spec, threads.routing_sample);
  if (threads.team != nullptr) {
    model->helpers_ = std::make_unique<PredictorHelpers>(*model->predictor_, threads.team, threads.split_candidates,
                                                         model->routing_.get());
  }
  for (int i = 0; i < threads.serving; ++i) {
    model->workspaces_.push_back(
        std::make_unique<Workspace>(*model->predictor_, model->helpers_.get(), model->routing_.get()));
  }
  if (const absl::Status warm = WarmUp(*model->predictor_, model->workspaces_); !warm.ok()) {
    LogWarning("the warm-up request was refused",
               {{"model", location.model}, {"version", location.version}, {"error", std::string(warm.message())}});
  }
  const v1::ModelFileHeader& header = model->predictor_->file().header();
  ModelFacts facts;
  facts.name = location.model;
  facts.version = location.version;
  facts.created_by = header.provenance().created_by();
  facts.instruction_set = model->predictor_->kernels().name;
  for (const FeatureSpec& feature : spec.features()) facts.features.push_back(feature.name);
  facts.routing = DescribeRouting(spec, header);
  facts.memory =
      v1::ServerConfig::ModelMemory_Name(memory == FileMemory::kMap ? v1::ServerConfig::MMAP : v1::ServerConfig::COPY);
  facts.bytes = model->predictor_->bytes();
  facts.created_seconds = CreatedSeconds(header.provenance().created());
  facts.loaded_seconds = absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch());
  facts.load_duration_seconds = absl::ToDoubleSeconds(absl::Now() - start);
  model->metrics_ = std::make_shared<const ModelMetrics>(std::move(facts), threads.serving, model->routing_);
  model->on_broken_ = options.on_broken;
  // Not before it is whole: what memory runs out for is destroyed here, and disposes of nothing.
  auto destroy = [dispose = options.dispose](const ServedModel* whole) {
    std::unique_ptr<const ServedModel> owned(whole);
    if (dispose) dispose(std::move(owned));
  };
  return std::shared_ptr<const ServedModel>(model.release(), std::move(destroy));
}

absl::Status ServedModel::CheckIntact() const {
  if (!broken_.load(std::memory_order_relaxed)) {
    const absl::Status status = predictor_->file().CheckUnchanged();
    if (status.ok()) return status;
    if (!broken_.exchange(true) && on_broken_) on_broken_();
  }
  return absl::UnavailableError(absl::StrCat("model '", name(), "' version ", version(),
                                             " is broken: its file was truncated or overwritten while it was mapped"));
}

}  // namespace hilomoe
