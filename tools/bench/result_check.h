// Whether a result is what it must be, before it is timed.
#ifndef HILOMOE_TOOLS_BENCH_RESULT_CHECK_H_
#define HILOMOE_TOOLS_BENCH_RESULT_CHECK_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "model/rounding.h"
#include "tools/bench/bench_model.h"
#include "tools/bench/bench_request.h"

namespace hilomoe::bench {

// |got - expected| <= the expected value's own bound, element by element; the error names `what` and the place. The
// bound of a plain loop over Rounded: 10 standard deviations of its rounding errors (model/rounding.h).
absl::Status CheckNumbers(const std::string& what, absl::Span<const float> got, const std::vector<Rounded>& expected);

// Probabilities of some rows of a request, spread over it, against the plain reference:
//   |score - s| <= s (1 - s) Bound(logit) + 2^-24
// Bound: as above, of a model with fewer bits with the errors of these (BenchModel::Reference). Rows closer to a top-k
// tie than rounding errors reach are left out. `place`: which rows, so that several requests check different ones.
absl::Status CheckScores(BenchModel* model, const BenchRequest& request, absl::Span<const float> scores, size_t place);

// That the scores of a request have the same bits whatever its rows are evaluated with: the context shared or in every
// row, and each row alone.
absl::Status CheckSplits(const BenchModel& model, const Predictor& predictor, const BenchRequest& request,
                         absl::Span<const float> scores);

// Encoded rows and numbers against what the request was made from; both must be equal.
absl::Status CheckEncoded(const BenchRequest& request, const EncodedBatch& encoded);

}  // namespace hilomoe::bench

#endif  // HILOMOE_TOOLS_BENCH_RESULT_CHECK_H_
