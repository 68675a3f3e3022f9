#include "tools/bench/bench_request.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <random>

namespace hilomoe::bench {
namespace {

constexpr double kZipfExponent = 1.05;

// cumulative[i]: the probability of a rank <= i.
const std::vector<double>& ZipfLaw(uint32_t ids) {
  static std::mutex mutex;
  static std::map<uint32_t, std::vector<double>> laws;
  const std::lock_guard lock(mutex);
  std::vector<double>& cumulative = laws[ids];
  if (!cumulative.empty()) return cumulative;
  double sum = 0;
  for (uint32_t i = 1; i <= ids; ++i) cumulative.push_back(sum += std::pow(i, -kZipfExponent));
  for (double& c : cumulative) c /= sum;
  return cumulative;
}

class RankSource {
 public:
  RankSource(uint32_t ids, IdLaw law, uint64_t seed) : ids_(ids), law_(law), engine_(seed) {}

  uint32_t Next() {
    if (law_ == IdLaw::kUniform) return static_cast<uint32_t>(engine_() % ids_);
    const std::vector<double>& cumulative = ZipfLaw(ids_);
    const double u = static_cast<double>(engine_() >> 11) * 0x1p-53;
    const auto rank = std::upper_bound(cumulative.begin(), cumulative.end(), u) - cumulative.begin();
    return std::min(static_cast<uint32_t>(rank), ids_ - 1);
  }
  float NextNumber() { return normal_(engine_); }

 private:
  uint32_t ids_;
  IdLaw law_;
  std::mt19937_64 engine_;
  std::normal_distribution<float> normal_;
};

}  // namespace

double DistinctIds(uint32_t ids, IdLaw law, size_t draws) {
  const std::vector<double>& cumulative = ZipfLaw(ids);
  double distinct = 0;
  for (uint32_t i = 0; i < ids; ++i) {
    const double p = law == IdLaw::kUniform ? 1.0 / ids : cumulative[i] - (i > 0 ? cumulative[i - 1] : 0);
    distinct += 1 - std::pow(1 - p, static_cast<double>(draws));
  }
  return distinct;
}

BenchRequest::BenchRequest(const BenchModel& model, const BenchRequestOptions& options, uint64_t seed)
    : options_(options), seed_(seed) {
  const ModelSpec& spec = model.spec();
  values_.resize(spec.features().size());
  expected_.candidate_rows = options.candidates;
  expected_.context_rows = options.flat ? options.candidates : 1;
  expected_.features.resize(spec.features().size());
  for (size_t f = 0; f < spec.features().size(); ++f) {
    const FeatureSpec& feature = spec.features()[f];
    // A source of its own, so that a longer request starts with a shorter one's candidates.
    RankSource source(model.options().ids, options.law, seed * 1000 + f);
    const size_t drawn = feature.is_context() ? 1 : options.candidates;
    const size_t repeated = feature.is_context() && options.flat ? options.candidates : 1;
    ColumnView column;
    column.feature_id = feature.id;
    if (feature.is_number()) {
      values_[f].numbers.assign(repeated, source.NextNumber());
      expected_.features[f].values = values_[f].numbers;
      column.numbers = values_[f].numbers;
    } else {
      for (size_t r = 0; r < drawn; ++r) {
        const uint32_t rank = source.Next();
        values_[f].ids.insert(values_[f].ids.end(), repeated, IdOf(static_cast<int>(f) - kNumericFeatures, rank));
        expected_.features[f].rows.insert(expected_.features[f].rows.end(), repeated, rank + kReservedRows);
      }
      column.ids = values_[f].ids;
    }
    (feature.is_context() && !options.flat ? context_ : candidates_).push_back(column);
  }
}

std::vector<std::shared_ptr<const BenchRequest>> MakeRequests(const BenchModel& model,
                                                              const BenchRequestOptions& options, size_t count,
                                                              uint64_t stream) {
  std::vector<std::shared_ptr<const BenchRequest>> requests;
  for (size_t i = 0; i < count; ++i) {
    requests.push_back(std::make_shared<BenchRequest>(model, options, 1 + stream * 10'000 + i));
  }
  return requests;
}

}  // namespace hilomoe::bench
