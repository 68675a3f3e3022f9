#include "tools/train/dataset.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/status_macros.h"
#include "runtime/column_view.h"
#include "tools/common/column_builder.h"
#include "tools/common/progress_bar.h"
#include "tools/train/random.h"

namespace hilomoe {
namespace {

constexpr size_t kChunkRows = 4096;
constexpr size_t kSampleRows = 64;
constexpr size_t kQuantileSamples = 1 << 20;  // more numbers than that are sampled; a quantile needs no more

// `index(i)` is the i-th row wanted of n.
template <typename Index>
void Select(const Dataset& dataset, size_t n, const Index& index, EncodedBatch* batch, std::vector<float>* labels) {
  batch->context_rows = batch->candidate_rows = n;
  batch->features.resize(dataset.rows.features.size());
  for (size_t f = 0; f < batch->features.size(); ++f) {
    const EncodedFeature& from = dataset.rows.features[f];
    EncodedFeature& to = batch->features[f];
    to.rows.clear();
    to.offsets.clear();
    to.values.clear();
    to.missing.clear();
    if (!from.offsets.empty()) {
      to.offsets.push_back(0);
      for (size_t i = 0; i < n; ++i) {
        const size_t r = index(i);
        to.rows.insert(to.rows.end(), from.rows.begin() + from.offsets[r], from.rows.begin() + from.offsets[r + 1]);
        to.offsets.push_back(static_cast<uint32_t>(to.rows.size()));
      }
      continue;
    }
    const auto select = [&](const auto& source, auto& target) {
      if (source.empty()) return;
      target.resize(n);
      for (size_t i = 0; i < n; ++i) target[i] = source[index(i)];
    };
    select(from.rows, to.rows);
    select(from.values, to.values);
    select(from.missing, to.missing);
  }
  labels->resize(n);
  for (size_t i = 0; i < n; ++i) (*labels)[i] = dataset.labels[index(i)];
}

// Mean, deviation and quantiles of a stream of numbers.
class NumberStatistics {
 public:
  explicit NumberStatistics(uint64_t seed) : random_(seed) {}

  void Add(float number) {
    ++count_;
    const double delta = number - mean_;
    mean_ += delta / static_cast<double>(count_);
    squared_ += delta * (number - mean_);
    // Reservoir sampling: every number seen so far is kept with the same probability.
    if (sample_.size() < kQuantileSamples) {
      sample_.push_back(number);
    } else if (const uint64_t at = random_.Below(count_); at < kQuantileSamples) {
      sample_[at] = number;
    }
  }
  std::vector<float> Standardise() const {
    const double deviation = count_ > 0 ? std::sqrt(squared_ / static_cast<double>(count_)) : 0;
    return {static_cast<float>(mean_), static_cast<float>(deviation > 0 ? 1 / deviation : 1)};
  }
  std::vector<float> Boundaries(size_t buckets) {
    std::sort(sample_.begin(), sample_.end());
    std::vector<float> boundaries;
    for (size_t i = 1; i < buckets; ++i) {
      boundaries.push_back(sample_.empty() ? 0 : sample_[sample_.size() * i / buckets]);
    }
    return boundaries;
  }

 private:
  Random random_;
  uint64_t count_ = 0;
  double mean_ = 0, squared_ = 0;
  std::vector<float> sample_;
};

void CountIds(const v1::Column& column, VocabularyBuilder& builder) {
  for (const int64_t id : column.ids()) builder.Count(id);
  size_t begin = 0;
  for (const uint32_t bytes : column.string_bytes()) {
    builder.Count(std::string_view(column.strings()).substr(begin, bytes));
    begin += bytes;
  }
}

// Keeps the first row of some chunks, evenly spread: whenever there are twice as many as wanted, every second goes.
class Sampler {
 public:
  void Offer(const LogChunk& chunk) {
    if (offered_++ % stride_ != 0) return;
    auto& row = rows_.emplace_back();
    for (const v1::Column& column : chunk.columns) {
      row.Add()->set_feature_id(column.feature_id());
      AppendRow(column, 0, 0, row.Mutable(row.size() - 1));
    }
    if (rows_.size() < 2 * kSampleRows) return;
    for (size_t i = 0; i < kSampleRows; ++i) rows_[i] = std::move(rows_[2 * i]);
    rows_.resize(kSampleRows);
    stride_ *= 2;
  }
  v1::GoldenRequest Take() const {
    v1::GoldenRequest samples;
    const size_t n = std::min(rows_.size(), kSampleRows);
    for (size_t i = 0; i < n; ++i) {
      for (int f = 0; f < rows_[i].size(); ++f) {
        if (samples.candidates_size() <= f) samples.add_candidates()->set_feature_id(rows_[i].Get(f).feature_id());
        AppendRow(rows_[i].Get(f), 0, i, samples.mutable_candidates(f));
      }
    }
    samples.set_num_candidates(static_cast<uint32_t>(n));
    return samples;
  }

 private:
  size_t offered_ = 0, stride_ = 1;
  std::vector<google::protobuf::RepeatedPtrField<v1::Column>> rows_;
};

void Append(const EncodedBatch& batch, EncodedBatch* all) {
  all->features.resize(batch.features.size());
  for (size_t f = 0; f < batch.features.size(); ++f) {
    const EncodedFeature& from = batch.features[f];
    EncodedFeature& to = all->features[f];
    if (!from.offsets.empty()) {
      if (to.offsets.empty()) to.offsets.push_back(0);
      const uint32_t base = to.offsets.back();
      for (size_t i = 1; i < from.offsets.size(); ++i) to.offsets.push_back(base + from.offsets[i]);
    }
    to.rows.insert(to.rows.end(), from.rows.begin(), from.rows.end());
    to.values.insert(to.values.end(), from.values.begin(), from.values.end());
    to.missing.insert(to.missing.end(), from.missing.begin(), from.missing.end());
  }
  all->candidate_rows += batch.candidate_rows;
  all->context_rows = all->candidate_rows;
}

}  // namespace

void SelectRows(const Dataset& dataset, absl::Span<const uint32_t> indices, EncodedBatch* batch,
                std::vector<float>* labels) {
  Select(
      dataset, indices.size(), [&](size_t i) { return indices[i]; }, batch, labels);
}

void SelectRange(const Dataset& dataset, size_t begin, size_t end, EncodedBatch* batch, std::vector<float>* labels) {
  Select(
      dataset, end - begin, [&](size_t i) { return begin + i; }, batch, labels);
}

absl::StatusOr<LogStatistics> MeasureLog(const std::vector<std::string>& paths, const ModelSpec& spec,
                                         const LogChunksOptions& options) {
  HILOMOE_ASSIGN_OR_RETURN(LogChunks log, LogChunks::Open(paths, spec, options));
  std::vector<VocabularyBuilder> builders;
  for (const TableSpec& table : spec.tables()) builders.emplace_back(table);
  std::vector<NumberStatistics> numbers;
  for (const FeatureSpec& feature : spec.features()) numbers.emplace_back(feature.id);
  LogStatistics out;
  Sampler sampler;
  ProgressBar progress({.label = "vocabularies"});
  LogChunk chunk;
  while (true) {
    // The first chunk is short, so that a small log, too, gives samples.
    HILOMOE_ASSIGN_OR_RETURN(const bool more,
                             log.Next(out.rows < kChunkRows ? kChunkRows / kSampleRows : kChunkRows, &chunk));
    if (!more) break;
    sampler.Offer(chunk);
    for (size_t f = 0; f < spec.features().size(); ++f) {
      const FeatureSpec& feature = spec.features()[f];
      const v1::Column& column = chunk.columns.Get(static_cast<int>(f));
      if (feature.is_numeric()) {
        for (const float number : column.numbers()) numbers[f].Add(number);
      } else if (spec.tables()[feature.table].has_vocabulary()) {
        CountIds(column, builders[feature.table]);
      }
    }
    out.rows += chunk.rows;
    progress.UpdateFraction(log.fraction(), static_cast<int64_t>(out.rows));
  }
  if (out.rows == 0) return absl::InvalidArgumentError(absl::StrCat("'", paths[0], "' has no rows to train on"));
  for (const VocabularyBuilder& builder : builders) out.vocabularies.push_back(builder.Build());
  for (size_t f = 0; f < spec.features().size(); ++f) {
    const FeatureSpec& feature = spec.features()[f];
    auto& standardise = out.standardise.emplace_back();
    auto& boundaries = out.boundaries.emplace_back();
    if (feature.is_bucketed()) boundaries = numbers[f].Boundaries(spec.tables()[feature.table].buckets);
    if (feature.is_numeric() && feature.transform == v1::Numeric::STANDARDISE) standardise = numbers[f].Standardise();
  }
  out.samples = sampler.Take();
  progress.Finish(absl::StrCat(
      absl::StrJoin(out.vocabularies, " + ",
                    [](std::string* text, const VocabularyIds& ids) { absl::StrAppend(text, ids.size()); }),
      " ids"));
  return out;
}

TrainingEncoder::TrainingEncoder(const ModelSpec& spec, const std::vector<VocabularyIds>& ids,
                                 const FeatureTensors<const float>& numeric)
    : tables_(spec.tables().size()) {
  for (size_t i = 0; i < spec.tables().size(); ++i) {
    const TableSpec& table = spec.tables()[i];
    if (!table.has_vocabulary()) {
      vocabularies_.push_back(Vocabulary::Hashed(table.hash_buckets));
      continue;
    }
    tables_[i] = BuildVocabularyTable(ids[i]);
    const uint32_t rows = kReservedRows + static_cast<uint32_t>(ids[i].size());
    // What was just built is sound.
    vocabularies_.push_back(*Vocabulary::FromBuckets(tables_[i].buckets, tables_[i].seed, tables_[i].max_probes, rows));
  }
  encoder_ = std::make_unique<RequestEncoder>(spec, vocabularies_, numeric);
}

absl::Status EncodeChunk(const LogChunk& chunk, const RequestEncoder& encoder, EncodedBatch* batch) {
  std::vector<ColumnView> views;
  AppendColumnViews(chunk.columns, &views);
  // Columns that the log lacks are left to the features' defaults.
  views.erase(std::remove_if(views.begin(), views.end(), [](const ColumnView& view) { return view.feature_id == 0; }),
              views.end());
  HILOMOE_RETURN_IF_ERROR(encoder.Encode({chunk.rows, {}, views}, batch, nullptr));
  return absl::OkStatus();
}

absl::StatusOr<Dataset> ReadDataset(const std::string& name, const std::vector<std::string>& paths,
                                    const ModelSpec& spec, const LogChunksOptions& options,
                                    const RequestEncoder& encoder) {
  HILOMOE_ASSIGN_OR_RETURN(LogChunks log, LogChunks::Open(paths, spec, options));
  Dataset dataset;
  LogChunk chunk;
  EncodedBatch batch;
  ProgressBar progress({.label = name});
  while (true) {
    HILOMOE_ASSIGN_OR_RETURN(const bool more, log.Next(kChunkRows, &chunk));
    if (!more) break;
    HILOMOE_RETURN_IF_ERROR(EncodeChunk(chunk, encoder, &batch));
    Append(batch, &dataset.rows);
    dataset.labels.insert(dataset.labels.end(), chunk.labels.begin(), chunk.labels.end());
    dataset.groups.insert(dataset.groups.end(), chunk.groups.begin(), chunk.groups.end());
    progress.UpdateFraction(log.fraction(), static_cast<int64_t>(dataset.size()));
  }
  if (dataset.size() == 0) return absl::InvalidArgumentError(absl::StrCat("'", paths[0], "' has no rows"));
  progress.Finish();
  return dataset;
}

}  // namespace hilomoe
