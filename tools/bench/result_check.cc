#include "tools/bench/result_check.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace hilomoe::bench {
namespace {

constexpr size_t kRowsChecked = 4;  // of a request: the reference takes milliseconds a row

}  // namespace

absl::Status CheckNumbers(const std::string& what, absl::Span<const float> got, const std::vector<Rounded>& expected) {
  if (got.size() != expected.size()) {
    return absl::DataLossError(absl::StrCat(what, ": ", got.size(), " numbers instead of ", expected.size()));
  }
  for (size_t i = 0; i < got.size(); ++i) {
    const double error = std::fabs(static_cast<double>(got[i]) - expected[i].value);
    if (!(error <= expected[i].Bound())) {
      return absl::DataLossError(absl::StrCat(what, ", number ", i, ": ", got[i], " instead of ", expected[i].value,
                                              ", bound ", expected[i].Bound()));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckScores(BenchModel* model, const BenchRequest& request, absl::Span<const float> scores, size_t place) {
  const size_t n = scores.size();
  for (size_t r = 0; r < n; ++r) {
    if (!(scores[r] >= 0 && scores[r] <= 1)) return absl::DataLossError(absl::StrCat("row ", r, " scores ", scores[r]));
  }
  std::vector<size_t> rows;
  for (size_t i = 0; i < std::min(kRowsChecked, n); ++i) rows.push_back((i * n / kRowsChecked + place * 67) % n);
  const ReferenceOutput<Rounded> expected = model->Reference(request.expected(), rows);
  for (size_t i = 0; i < rows.size(); ++i) {
    if (expected.tie_gap[i] <= Rounded::kDeviations) continue;
    const double s = ReferenceSigmoid(expected.logits[i].value);
    const double bound = s * (1 - s) * expected.logits[i].Bound() + 0x1p-24;
    const float score = scores[rows[i]];
    if (!(std::fabs(score - s) <= bound)) {
      return absl::DataLossError(
          absl::StrCat("row ", rows[i], " of ", n, " scores ", score, " instead of ", s, ", bound ", bound));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckEncoded(const BenchRequest& request, const EncodedBatch& encoded) {
  const EncodedBatch& expected = request.expected();
  if (encoded.context_rows != expected.context_rows || encoded.candidate_rows != expected.candidate_rows) {
    return absl::DataLossError("the encoded batch has another number of rows");
  }
  for (size_t f = 0; f < expected.features.size(); ++f) {
    if (encoded.features[f].rows != expected.features[f].rows ||
        encoded.features[f].values != expected.features[f].values) {
      return absl::DataLossError(absl::StrCat("feature ", f, " is encoded wrongly"));
    }
  }
  return absl::OkStatus();
}

}  // namespace hilomoe::bench
