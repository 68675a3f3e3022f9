// Random requests that fit a model's schema.
//
// Ids follow a Zipf law, the id of rank i (from 1) with a probability proportional to i^-exponent; numbers are normal,
// their absolute values where the model takes logarithms of them. A bag or sequence has 1 to 10 values, all of a row
// equally many, as attention wants its histories.
#ifndef HILOMOE_TOOLS_CLIENT_SYNTHETIC_REQUESTS_H_
#define HILOMOE_TOOLS_CLIENT_SYNTHETIC_REQUESTS_H_

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "hilomoe/v1/scoring_service.pb.h"
#include "model/model_file.h"
#include "model/model_spec.h"

namespace hilomoe {

// How many candidates requests have: sizes and their shares, which sum to 1.
struct CandidateMix {
  std::vector<std::pair<uint32_t, double>> sizes;
};

// "100" or "10:0.2,100:0.6,1000:0.2"; shares are divided by their sum.
absl::StatusOr<CandidateMix> ParseCandidateMix(std::string_view text);

struct SyntheticRequestOptions {
  size_t count = 64;
  CandidateMix candidates;
  double zipf_exponent = 1.05;
  uint32_t ids = 100'000;  // of a feature whose ids are not known: 1, 2, ... or "v1", "v2", ...
  uint64_t seed = 1;
};

// Per feature of the spec the INT64 ids that a model file knows, in the order of their rows; empty where it knows none.
using KnownIds = std::vector<std::vector<int64_t>>;
KnownIds KnownIdsOf(const ModelFile& file);

// Sizes have the shares of the mix as nearly as `count` allows. `known`: may be empty. Columns have numeric feature
// ids; no other field is set.
std::vector<v1::ScoreRequest> SyntheticRequests(const ModelSpec& spec, const KnownIds& known,
                                                const SyntheticRequestOptions& options);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_CLIENT_SYNTHETIC_REQUESTS_H_
