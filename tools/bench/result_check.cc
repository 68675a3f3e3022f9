#include "tools/bench/result_check.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "model/status_macros.h"

namespace hilomoe::bench {
namespace {

constexpr size_t kRowsChecked = 4;  // of a request: the reference takes milliseconds a row

bool SameBits(absl::Span<const float> a, absl::Span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

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

absl::Status CheckSplits(const BenchModel& model, const Predictor& predictor, const BenchRequest& request,
                         absl::Span<const float> scores) {
  Workspace workspace(predictor);
  BenchRequestOptions options = request.options();
  options.flat = !options.flat;
  const BenchRequest twin(model, options, request.seed());
  std::vector<float> other(scores.size());
  HILOMOE_RETURN_IF_ERROR(predictor.Predict(twin.view(), &workspace, absl::MakeSpan(other)));
  if (!SameBits(scores, other)) return absl::DataLossError("flat rows and a shared context differ in their scores");
  std::vector<ColumnView> row(request.view().candidates.begin(), request.view().candidates.end());
  for (size_t r = 0; r < scores.size(); ++r) {
    for (size_t i = 0; i < row.size(); ++i) {
      const ColumnView& whole = request.view().candidates[i];
      row[i].ids = whole.ids.empty() ? whole.ids : whole.ids.subspan(r, 1);
      row[i].numbers = whole.numbers.empty() ? whole.numbers : whole.numbers.subspan(r, 1);
    }
    float alone = 0;
    HILOMOE_RETURN_IF_ERROR(predictor.Predict({1, request.view().context, row}, &workspace, {&alone, 1}));
    if (!SameBits(scores.subspan(r, 1), {&alone, 1})) {
      return absl::DataLossError(absl::StrCat("row ", r, " scores ", scores[r], ", alone ", alone));
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
