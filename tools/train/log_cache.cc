#include "tools/train/log_cache.h"

#include <sys/stat.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "google/protobuf/text_format.h"
#include "model/checkpoint.h"
#include "model/file_io.h"
#include "model/status_macros.h"
#include "tools/common/progress_bar.h"
#include "tools/train/log_encoder.h"

#define XXH_INLINE_ALL
#include "xxhash.h"

namespace hilomoe {
namespace {

namespace fs = std::filesystem;

constexpr size_t kChunkRows = 1024;
static_assert(kBlockRows % kChunkRows == 0);

std::string VocabulariesPath(const std::string& directory) { return directory + "/vocabularies.safetensors"; }

std::string AbsolutePath(const std::string& path) {
  std::error_code error;
  const fs::path absolute = fs::absolute(path, error);
  return error ? path : absolute.lexically_normal().string();
}

absl::StatusOr<uint64_t> FileHash(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  XXH3_state_t state;
  XXH3_64bits_reset(&state);
  std::vector<char> buffer(size_t{1} << 20);
  while (file) {
    file.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
    XXH3_64bits_update(&state, buffer.data(), static_cast<size_t>(file.gcount()));
  }
  if (!file.eof()) return absl::DataLossError(absl::StrCat("cannot read '", path, "'"));
  return XXH3_64bits_digest(&state);
}

absl::Status SetSources(const std::vector<std::string>& logs, v1::RowCacheIndex* index) {
  index->clear_sources();
  for (const std::string& log : logs) {
    struct stat info;
    if (::stat(log.c_str(), &info) != 0) return absl::ErrnoToStatus(errno, log + ": cannot open");
    if (!S_ISREG(info.st_mode)) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", log, "' is not a regular file; logs are read more than once in training"));
    }
    auto* source = index->add_sources();
    source->set_path(AbsolutePath(log));
    source->set_bytes(static_cast<uint64_t>(info.st_size));
    source->set_modified_ns(int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec);
  }
  return absl::OkStatus();
}

bool SameSources(const v1::RowCacheIndex& a, const v1::RowCacheIndex& b) {
  if (a.sources_size() != b.sources_size()) return false;
  for (int i = 0; i < a.sources_size(); ++i) {
    if (a.sources(i).SerializeAsString() != b.sources(i).SerializeAsString()) return false;
  }
  return true;
}

// A log that is being written while it is read would be cached as it never was.
absl::Status CheckUnchanged(const std::vector<std::string>& logs, const v1::RowCacheIndex& before) {
  v1::RowCacheIndex now;
  HILOMOE_RETURN_IF_ERROR(SetSources(logs, &now));
  if (SameSources(now, before)) return absl::OkStatus();
  return absl::AbortedError(absl::StrCat("'", logs[0], "' changed while it was read; start again when it is complete"));
}

// What was left beside `path` by a process that was killed while it wrote there; one at work writes all the time. Not
// by its process id, as RemoveLeftovers: a cache may be shared with other machines.
void RemoveOldLeftovers(const std::string& path) {
  std::error_code error;
  const std::string prefix = fs::path(path).filename().string() + ".tmp.";
  for (const auto& entry : fs::directory_iterator(fs::path(path).parent_path(), error)) {
    if (!absl::StartsWith(entry.path().filename().string(), prefix)) continue;
    auto newest = fs::last_write_time(entry.path(), error);
    for (const auto& file : fs::directory_iterator(entry.path(), error)) {
      newest = std::max(newest, file.last_write_time(error));
    }
    const bool dead = !error && fs::file_time_type::clock::now() - newest > std::chrono::hours(1);
    if (dead) fs::remove_all(entry.path(), error);
  }
}

void PutStatistics(const LogStatistics& from, v1::RowCacheIndex::Statistics* to) {
  to->set_rows(from.rows);
  for (size_t f = 0; f < from.standardise.size(); ++f) {
    auto* numbers = to->add_features();
    numbers->mutable_standardise()->Add(from.standardise[f].begin(), from.standardise[f].end());
    numbers->mutable_boundaries()->Add(from.boundaries[f].begin(), from.boundaries[f].end());
  }
  *to->mutable_samples() = from.samples;
}

absl::StatusOr<LogStatistics> GetStatistics(const v1::RowCacheIndex::Statistics& from, const std::string& directory,
                                            const ModelSpec& spec) {
  const std::string path = VocabulariesPath(directory);
  HILOMOE_ASSIGN_OR_RETURN(const uint64_t hash, FileHash(path));
  if (hash != from.vocabularies_xxh3() || from.features_size() != static_cast<int>(spec.features().size())) {
    return absl::DataLossError(absl::StrCat("'", path, "' is damaged"));
  }
  LogStatistics to;
  HILOMOE_ASSIGN_OR_RETURN(to.vocabularies, ReadVocabularies(path, spec));
  for (const auto& numbers : from.features()) {
    to.standardise.emplace_back(numbers.standardise().begin(), numbers.standardise().end());
    to.boundaries.emplace_back(numbers.boundaries().begin(), numbers.boundaries().end());
  }
  to.samples = from.samples();
  to.rows = from.rows();
  return to;
}

}  // namespace

absl::StatusOr<LogCache> LogCache::Open(const ModelSpec& spec, Options options) {
  std::error_code error;
  fs::create_directories(options.directory, error);
  if (error) return SystemError(error.value(), "cannot create", options.directory);
  LogCache cache(spec, std::move(options));
  if (cache.options_.warm_start != nullptr) cache.warm_start_ = cache.options_.warm_start->fingerprint();
  HILOMOE_RETURN_IF_ERROR(cache.OpenTraining());
  cache.options_.warm_start = nullptr;  // lent for so long only
  return cache;
}

absl::StatusOr<v1::RowCacheIndex> LogCache::Wanted(const std::vector<std::string>& logs, bool weights) const {
  v1::RowCacheIndex index;
  HILOMOE_RETURN_IF_ERROR(SetSources(logs, &index));
  v1::ModelConfig features;
  *features.mutable_features() = spec_->config().features();
  for (v1::Feature& feature : *features.mutable_features()) {
    feature.clear_embedding_width();
    feature.clear_pooling();
  }
  std::string text;
  google::protobuf::TextFormat::PrintToString(features, &text);
  // Side by side, sequences keep their empty positions.
  for (const v1::Attention& attention : spec_->config().network().attention()) {
    if (attention.history_size() > 1)
      absl::StrAppend(&text, "aligned: ", absl::StrJoin(attention.history(), " "), "\n");
  }
  absl::StrAppend(&text, "label: ", options_.columns.label, "\ngroup_by: ", options_.columns.group_by, "\n");
  if (weights) absl::StrAppend(&text, "weight: ", options_.columns.weight, "\n");
  if (warm_start_ != 0) absl::StrAppend(&text, "warm_start: ", absl::Hex(warm_start_), "\n");
  for (const std::string& log : options_.training_logs) absl::StrAppend(&text, "train: ", AbsolutePath(log), "\n");
  for (const auto& source : index.sources()) absl::StrAppend(&text, "rows: ", source.path(), "\n");
  index.set_made_for(text);
  index.set_encoding(encoding_);
  return index;
}

std::string LogCache::PathOf(const std::string& name, const v1::RowCacheIndex& wanted) const {
  const std::string& text = wanted.made_for();
  return absl::StrFormat("%s/%s-%016x", options_.directory, name, XXH3_64bits(text.data(), text.size()));
}

std::optional<RowCache> LogCache::Reuse(const std::string& path, const RowColumns& columns,
                                        const v1::RowCacheIndex& wanted) const {
  absl::StatusOr<RowCache> cache = RowCache::Open(path, columns);
  if (absl::IsNotFound(cache.status())) return std::nullopt;
  std::string reason;
  if (!cache.ok()) {
    reason = std::string(cache.status().message());
  } else if (cache->index().made_for() != wanted.made_for()) {
    reason = "made for another config";
  } else if (!SameSources(cache->index(), wanted)) {
    reason = "its log has changed";
  } else if (encoding_ != 0 && cache->index().encoding() != encoding_) {
    reason = "the training log has changed";
  } else {
    return *std::move(cache);
  }
  std::fprintf(stderr, "cache '%s' is rebuilt: %s\n", path.c_str(), reason.c_str());
  return std::nullopt;
}

absl::Status LogCache::OpenTraining() {
  const std::vector<std::string>& logs = options_.training_logs;
  const RowColumns columns =
      RowColumns::Of(*spec_, !options_.columns.weight.empty(), !options_.columns.group_by.empty());
  HILOMOE_ASSIGN_OR_RETURN(v1::RowCacheIndex wanted, Wanted(logs, columns.weights));
  const std::string path = PathOf("train", wanted);
  if (std::optional<RowCache> cache = Reuse(path, columns, wanted)) {
    absl::StatusOr<LogStatistics> statistics = GetStatistics(cache->index().statistics(), path, *spec_);
    if (statistics.ok()) {
      statistics_ = *std::move(statistics);
      encoding_ = cache->index().encoding();
      training_rows_ = std::move(cache);
      return absl::OkStatus();
    }
    std::fprintf(stderr, "cache '%s' is rebuilt: %s\n", path.c_str(),
                 std::string(statistics.status().message()).c_str());
  }
  RemoveOldLeftovers(path);
  HILOMOE_ASSIGN_OR_RETURN(statistics_, MeasureLog(logs, *spec_, options_.columns));
  if (options_.warm_start != nullptr) options_.warm_start->Grow(*spec_, &statistics_);
  HILOMOE_ASSIGN_OR_RETURN(RowCacheWriter writer, RowCacheWriter::Create(path, columns));
  const std::string vocabularies = VocabulariesPath(writer.staging_path());
  HILOMOE_RETURN_IF_ERROR(WriteVocabularies(vocabularies, *spec_, statistics_.vocabularies));
  PutStatistics(statistics_, wanted.mutable_statistics());
  HILOMOE_ASSIGN_OR_RETURN(const uint64_t hash, FileHash(vocabularies));
  wanted.mutable_statistics()->set_vocabularies_xxh3(hash);
  const std::string bytes = wanted.statistics().SerializeAsString();
  wanted.set_encoding(XXH3_64bits(bytes.data(), bytes.size()));
  HILOMOE_RETURN_IF_ERROR(WriteRows("train", logs, options_.columns, &writer));
  HILOMOE_RETURN_IF_ERROR(CheckUnchanged(logs, wanted));
  HILOMOE_ASSIGN_OR_RETURN(training_rows_, writer.Commit(wanted));
  encoding_ = wanted.encoding();
  return absl::OkStatus();
}

absl::StatusOr<RowCache> LogCache::Rows(const std::string& name, const std::vector<std::string>& logs) const {
  const RowColumns columns = RowColumns::Of(*spec_, false, !options_.columns.group_by.empty());
  HILOMOE_ASSIGN_OR_RETURN(const v1::RowCacheIndex wanted, Wanted(logs, columns.weights));
  const std::string path = PathOf(name, wanted);
  if (std::optional<RowCache> cache = Reuse(path, columns, wanted)) return *std::move(cache);
  RemoveOldLeftovers(path);
  LogChunksOptions options = options_.columns;
  options.weight.clear();
  HILOMOE_ASSIGN_OR_RETURN(RowCacheWriter writer, RowCacheWriter::Create(path, columns));
  HILOMOE_RETURN_IF_ERROR(WriteRows(name, logs, options, &writer));
  HILOMOE_RETURN_IF_ERROR(CheckUnchanged(logs, wanted));
  return writer.Commit(wanted);
}

absl::Status LogCache::WriteRows(const std::string& name, const std::vector<std::string>& logs,
                                 const LogChunksOptions& columns, RowCacheWriter* writer) const {
  HILOMOE_ASSIGN_OR_RETURN(LogChunks log, LogChunks::Open(logs, *spec_, columns));
  HILOMOE_ASSIGN_OR_RETURN(const LogEncoder encoder,
                           LogEncoder::Create(*spec_, statistics_.vocabularies, NumericTensors(statistics_)));
  LogChunk chunk;
  LabelledRows rows;
  ProgressBar progress({.label = name});
  while (true) {
    HILOMOE_ASSIGN_OR_RETURN(const bool more, log.Next(kChunkRows, &chunk));
    if (!more) break;
    HILOMOE_RETURN_IF_ERROR(encoder.Encode(chunk, &rows.encoded));
    rows.labels.swap(chunk.labels);
    rows.groups.swap(chunk.groups);
    rows.weights.swap(chunk.weights);
    HILOMOE_RETURN_IF_ERROR(writer->Append(rows));
    progress.UpdateFraction(log.fraction(), static_cast<int64_t>(writer->rows()));
  }
  if (writer->rows() == 0) return absl::InvalidArgumentError(absl::StrCat("'", logs[0], "' has no rows"));
  progress.Finish();
  return absl::OkStatus();
}

}  // namespace hilomoe
