#include "server/model_metrics.h"

#include <algorithm>
#include <utility>

namespace hilomoe {
namespace {

// Request durations, in ns: 50 us to 1 s, neighbours at most a factor of sqrt(2) apart, so that a quantile read from
// them is off by no more than that.
constexpr uint64_t kRequestBounds[] = {
    50'000,      70'000,      100'000,     140'000,     200'000,     280'000,     400'000,      560'000,
    800'000,     1'000'000,   1'400'000,   2'000'000,   2'800'000,   4'000'000,   5'600'000,    8'000'000,
    10'000'000,  14'000'000,  20'000'000,  28'000'000,  40'000'000,  56'000'000,  80'000'000,   100'000'000,
    140'000'000, 200'000'000, 280'000'000, 400'000'000, 560'000'000, 800'000'000, 1'000'000'000};
// Stages start lower: decoding takes microseconds.
constexpr uint64_t kStageBounds[] = {2'000,      5'000,      10'000,      20'000,      50'000,      100'000,
                                     200'000,    500'000,    1'000'000,   2'000'000,   5'000'000,   10'000'000,
                                     20'000'000, 50'000'000, 100'000'000, 200'000'000, 500'000'000, 1'000'000'000};
constexpr uint64_t kCandidateBounds[] = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000};
static_assert(std::size(kRequestBounds) <= kMaxBounds && std::size(kStageBounds) <= kMaxBounds);

}  // namespace

ModelMetrics::Shard::Shard(size_t num_features)
    : request_candidates(kCandidateBounds),
      request_duration_ns{Histogram(kRequestBounds), Histogram(kRequestBounds), Histogram(kRequestBounds),
                          Histogram(kRequestBounds), Histogram(kRequestBounds)},
      stage_ns{Histogram(kStageBounds), Histogram(kStageBounds), Histogram(kStageBounds), Histogram(kStageBounds),
               Histogram(kStageBounds)},
      values(num_features),
      out_of_vocabulary(num_features),
      missing(num_features) {}

void ModelMetrics::Shard::Take(EncodeCounts* counts) {
  const auto take = [](std::vector<uint64_t>* from, std::vector<Counter>* to) {
    const size_t n = std::min(from->size(), to->size());
    for (size_t i = 0; i < n; ++i) (*to)[i].Add((*from)[i]);
    std::fill(from->begin(), from->end(), 0);
  };
  take(&counts->values, &values);
  take(&counts->out_of_vocabulary, &out_of_vocabulary);
  take(&counts->missing, &missing);
  unknown_features.Add(counts->unknown_features);
  counts->unknown_features = 0;
}

ModelMetrics::ModelMetrics(ModelFacts facts, int serving_threads, std::shared_ptr<const RoutingStatistics> routing)
    : facts_(std::move(facts)), routing_(std::move(routing)) {
  for (int i = 0; i < serving_threads; ++i) shards_.push_back(std::make_unique<Shard>(facts_.features.size()));
}

}  // namespace hilomoe
