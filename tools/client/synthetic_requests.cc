#include "tools/client/synthetic_requests.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace hilomoe {
namespace {

constexpr size_t kMostValues = 10;  // of a bag or sequence

// Ranks from 0.
class ZipfRanks {
 public:
  ZipfRanks(size_t ids, double exponent) {
    double sum = 0;
    for (size_t i = 1; i <= ids; ++i) cumulative_.push_back(sum += std::pow(static_cast<double>(i), -exponent));
  }
  size_t Draw(std::mt19937_64* engine) const {
    const double u = static_cast<double>((*engine)() >> 11) * 0x1p-53 * cumulative_.back();
    const auto rank = std::upper_bound(cumulative_.begin(), cumulative_.end(), u) - cumulative_.begin();
    return std::min(static_cast<size_t>(rank), cumulative_.size() - 1);
  }

 private:
  std::vector<double> cumulative_;
};

class RequestMaker {
 public:
  RequestMaker(const ModelSpec& spec, const KnownIds& known, const SyntheticRequestOptions& options)
      : spec_(spec), known_(known), options_(options), engine_(options.seed) {
    most_values_ = kMostValues;
    for (const FeatureSpec& feature : spec.features()) {
      if (feature.is_pooled() && feature.max_length > 0) most_values_ = std::min(most_values_, feature.max_length);
    }
  }

  v1::ScoreRequest Make(uint32_t candidates) {
    v1::ScoreRequest request;
    request.set_num_candidates(candidates);
    const std::vector<size_t> context_values = DrawLengths(1), candidate_values = DrawLengths(candidates);
    for (size_t f = 0; f < spec_.features().size(); ++f) {
      const bool context = spec_.features()[f].is_context();
      Fill(f, context ? context_values : candidate_values, context ? request.add_context() : request.add_candidates());
    }
    return request;
  }

 private:
  std::vector<size_t> DrawLengths(size_t rows) {
    std::vector<size_t> lengths(rows);
    for (size_t& length : lengths) length = 1 + engine_() % most_values_;
    return lengths;
  }

  void Fill(size_t f, const std::vector<size_t>& lengths, v1::Column* column) {
    const FeatureSpec& feature = spec_.features()[f];
    column->set_feature_id(feature.id);
    for (const size_t length : lengths) {
      if (feature.is_numeric()) {
        const float number = normal_(engine_);
        column->add_numbers(feature.transform == v1::Numeric::NONE ? number : std::fabs(number));
        continue;
      }
      const size_t values = feature.is_pooled() ? length : 1;
      if (feature.is_pooled()) column->add_row_lengths(static_cast<uint32_t>(values));
      for (size_t v = 0; v < values; ++v) AddId(f, column);
    }
  }

  void AddId(size_t f, v1::Column* column) {
    const bool known = f < known_.size() && !known_[f].empty();
    const size_t rank = Ranks(known ? known_[f].size() : options_.ids).Draw(&engine_);
    if (spec_.features()[f].id_type == v1::Feature::STRING) {
      const std::string id = absl::StrCat("v", rank + 1);
      column->mutable_strings()->append(id);
      column->add_string_bytes(static_cast<uint32_t>(id.size()));
    } else {
      column->add_ids(known ? known_[f][rank] : static_cast<int64_t>(rank) + 1);
    }
  }

  const ZipfRanks& Ranks(size_t ids) {
    const auto found = ranks_.find(ids);
    if (found != ranks_.end()) return found->second;
    return ranks_.emplace(ids, ZipfRanks(std::max<size_t>(ids, 1), options_.zipf_exponent)).first->second;
  }

  const ModelSpec& spec_;
  const KnownIds& known_;
  const SyntheticRequestOptions& options_;
  std::mt19937_64 engine_;
  std::normal_distribution<float> normal_;
  std::map<size_t, ZipfRanks> ranks_;  // by how many ids
  size_t most_values_ = 0;
};

}  // namespace

absl::StatusOr<CandidateMix> ParseCandidateMix(std::string_view text) {
  const absl::string_view all(text.data(), text.size());
  CandidateMix mix;
  double sum = 0;
  for (const absl::string_view part : absl::StrSplit(all, ',')) {
    const std::vector<absl::string_view> pair = absl::StrSplit(part, ':');
    uint32_t size = 0;
    double share = 1;
    if (pair.size() > 2 || !absl::SimpleAtoi(pair[0], &size) ||
        (pair.size() == 2 && (!absl::SimpleAtod(pair[1], &share) || !(share > 0) || !std::isfinite(share)))) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", all, "' is not a number of candidates, nor a mix as 10:0.2,100:0.6,1000:0.2"));
    }
    mix.sizes.emplace_back(size, share);
    sum += share;
  }
  for (auto& [size, share] : mix.sizes) share /= sum;
  return mix;
}

KnownIds KnownIdsOf(const ModelFile& file) {
  const ModelSpec& spec = file.spec();
  KnownIds known(spec.features().size());
  for (size_t f = 0; f < spec.features().size(); ++f) {
    const int t = spec.features()[f].table;
    if (t < 0 || spec.features()[f].is_numeric()) continue;
    const TableSpec& table = spec.tables()[static_cast<size_t>(t)];
    if (!table.has_vocabulary() || table.id_type != v1::Feature::INT64) continue;
    known[f] = file.vocabularies()[static_cast<size_t>(t)].Int64Ids();
  }
  return known;
}

std::vector<v1::ScoreRequest> SyntheticRequests(const ModelSpec& spec, const KnownIds& known,
                                                const SyntheticRequestOptions& options) {
  RequestMaker maker(spec, known, options);
  std::vector<v1::ScoreRequest> requests;
  for (size_t i = 0; i < options.count; ++i) {
    // The size whose share of the mix covers the middle of the request's share of the set.
    double at = (static_cast<double>(i) + 0.5) / static_cast<double>(options.count);
    size_t s = 0;
    while (s + 1 < options.candidates.sizes.size() && at >= options.candidates.sizes[s].second) {
      at -= options.candidates.sizes[s++].second;
    }
    requests.push_back(maker.Make(options.candidates.sizes[s].first));
  }
  std::mt19937_64 engine(options.seed);
  std::shuffle(requests.begin(), requests.end(), engine);
  return requests;
}

}  // namespace hilomoe
