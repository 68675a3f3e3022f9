#include "tools/train/log_statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/status_macros.h"
#include "tools/common/column_builder.h"
#include "tools/common/progress_bar.h"
#include "tools/train/random.h"

namespace hilomoe {
namespace {

constexpr size_t kChunkRows = 4096;
constexpr size_t kSampleRows = 64;
constexpr size_t kQuantileSamples = 1 << 20;  // more numbers than that are sampled; a quantile needs no more

// Mean, deviation and quantiles of a stream of numbers.
class NumberStatistics {
 public:
  NumberStatistics(uint64_t seed, bool quantiles) : random_(seed), quantiles_(quantiles) {}

  void Add(float number) {
    ++count_;
    const double delta = number - mean_;
    mean_ += delta / static_cast<double>(count_);
    squared_ += delta * (number - mean_);
    if (!quantiles_) return;
    // Reservoir sampling: every number seen so far is kept with the same probability.
    if (sample_.size() < kQuantileSamples) {
      sample_.push_back(number);
    } else if (const uint64_t at = random_.Below(count_); at < kQuantileSamples) {
      sample_[at] = number;
    }
  }
  std::vector<float> Standardise() const {
    const double deviation = count_ > 0 ? std::sqrt(squared_ / static_cast<double>(count_)) : 0;
    // One value all over, or nearly, has no scale.
    const bool scaled = deviation > std::numeric_limits<float>::min();
    return {static_cast<float>(mean_), static_cast<float>(scaled ? 1 / deviation : 1)};
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
  const bool quantiles_;
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

}  // namespace

absl::StatusOr<LogStatistics> MeasureLog(const std::vector<std::string>& paths, const ModelSpec& spec,
                                         const LogChunksOptions& options) {
  HILOMOE_ASSIGN_OR_RETURN(LogChunks log, LogChunks::Open(paths, spec, options));
  std::vector<VocabularyBuilder> builders;
  for (const TableSpec& table : spec.tables()) builders.emplace_back(table);
  std::vector<NumberStatistics> numbers;
  for (const FeatureSpec& feature : spec.features()) numbers.emplace_back(feature.id, feature.is_bucketed());
  LogStatistics out;
  Sampler sampler;
  ProgressBar progress({.label = "vocabularies"});
  LogChunk chunk;
  while (true) {
    // The first chunks are short, so that a small log, too, gives samples.
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

FeatureTensors<const float> NumericTensors(const LogStatistics& statistics) {
  FeatureTensors<const float> tensors;
  tensors.numeric_weight.resize(statistics.standardise.size(), nullptr);
  for (const std::vector<float>& values : statistics.standardise) tensors.standardise.push_back(values.data());
  for (const std::vector<float>& values : statistics.boundaries) tensors.boundaries.push_back(values.data());
  return tensors;
}

}  // namespace hilomoe
