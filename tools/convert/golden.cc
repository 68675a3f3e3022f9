#include "tools/convert/golden.h"

#include <algorithm>
#include <cmath>

#include "model/reference.h"
#include "model/status_macros.h"
#include "runtime/column_view.h"
#include "tools/common/column_builder.h"

namespace hilomoe {
namespace {

constexpr size_t kCandidates = 8;

// A request with the context of sample `context` and the candidates of samples `rows`.
v1::GoldenRequest MakeRequest(const ModelSpec& spec, const v1::GoldenRequest& samples, size_t context,
                              const std::vector<size_t>& rows) {
  v1::GoldenRequest request;
  request.set_num_candidates(static_cast<uint32_t>(rows.size()));
  for (const v1::Column& column : samples.candidates()) {
    const int f = spec.FindFeature(column.feature_id());
    if (f < 0) continue;
    const bool is_context = spec.features()[static_cast<size_t>(f)].is_context();
    v1::Column* to = is_context ? request.add_context() : request.add_candidates();
    to->set_feature_id(column.feature_id());
    if (is_context) {
      AppendRow(column, context, 0, to);
    } else {
      for (size_t i = 0; i < rows.size(); ++i) AppendRow(column, rows[i], i, to);
    }
  }
  return request;
}

absl::StatusOr<ReferenceOutput<Rounded>> Score(const ModelSpec& spec, const ModelTensors<const Rounded>& tensors,
                                               const RequestEncoder& encoder, const v1::GoldenRequest& request) {
  std::vector<ColumnView> context, candidates;
  AppendColumnViews(request.context(), &context);
  AppendColumnViews(request.candidates(), &candidates);
  EncodedBatch batch;
  HILOMOE_RETURN_IF_ERROR(encoder.Encode({request.num_candidates(), context, candidates}, &batch, nullptr));
  return ReferenceForward(spec, tensors, batch);
}

}  // namespace

absl::StatusOr<Golden> MakeGolden(const ModelSpec& spec, const Checkpoint& checkpoint, const RequestEncoder& encoder) {
  const TensorRegistry registry = TensorRegistry::ForTraining(spec, checkpoint.TableRows(spec));
  const std::vector<Rounded> arena(checkpoint.weights.begin(), checkpoint.weights.end());
  const auto tensors = registry.Bind<const Rounded>(spec, arena.data());
  Golden golden;
  const size_t samples = checkpoint.samples.num_candidates();
  for (size_t begin = 0; begin < samples; begin += kCandidates) {
    std::vector<size_t> rows;
    for (size_t r = begin; r < std::min(samples, begin + kCandidates); ++r) rows.push_back(r);
    const v1::GoldenRequest all = MakeRequest(spec, checkpoint.samples, begin, rows);
    HILOMOE_ASSIGN_OR_RETURN(const ReferenceOutput<Rounded> output, Score(spec, tensors, encoder, all));
    std::vector<size_t> clear;
    std::vector<double> scores;
    for (size_t i = 0; i < rows.size(); ++i) {
      if (output.tie_gap[i] <= Rounded::kDeviations) {
        ++golden.skipped;
        continue;
      }
      const Rounded logit = output.logits[i];
      const double score = 1 / (1 + std::exp(-logit.value));
      clear.push_back(rows[i]);
      scores.push_back(score);
      golden.tolerance = std::max(golden.tolerance, score * (1 - score) * logit.Bound() + Rounded::kUnit);
    }
    if (clear.empty()) continue;
    v1::GoldenRequest& request = golden.requests.emplace_back(MakeRequest(spec, checkpoint.samples, begin, clear));
    for (const double score : scores) request.add_scores(score);
    golden.rows += static_cast<int>(clear.size());
  }
  return golden;
}

}  // namespace hilomoe
