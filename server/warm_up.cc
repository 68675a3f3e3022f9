#include "server/warm_up.h"

#include <cstdint>
#include <string>
#include <vector>

#include "hilomoe/v1/column.pb.h"
#include "model/status_macros.h"
#include "runtime/column_view.h"

namespace hilomoe {
namespace {

// One candidate, a tile and a bit, some tiles.
constexpr size_t kEvaluated[] = {1, 65, 256};
// Of a BAG or a SEQUENCE. All the same, as those that attention puts side by side must be.
constexpr uint32_t kValues = 4;

using Columns = google::protobuf::RepeatedPtrField<v1::Column>;

// Values 0 to rows * kValues - 1, as the feature's type wants them.
void AddColumn(const FeatureSpec& feature, size_t rows, Columns* columns) {
  v1::Column* column = columns->Add();
  column->set_feature_id(feature.id);
  const size_t values = rows * (feature.is_pooled() ? kValues : 1);
  if (feature.is_pooled()) column->mutable_row_lengths()->Resize(static_cast<int>(rows), kValues);
  for (size_t i = 0; i < values; ++i) {
    if (feature.is_numeric()) {
      column->add_numbers(static_cast<float>(i));
    } else if (feature.id_type == v1::Feature::INT64) {
      column->add_ids(static_cast<int64_t>(i));
    } else {
      const std::string id = std::to_string(i);
      column->mutable_strings()->append(id);
      column->add_string_bytes(static_cast<uint32_t>(id.size()));
    }
  }
}

// A request for any model. Its views point into itself.
struct MadeUpRequest {
  MadeUpRequest(const ModelSpec& spec, size_t candidates) {
    for (const FeatureSpec& feature : spec.features()) {
      feature.is_context() ? AddColumn(feature, 1, &context) : AddColumn(feature, candidates, &rows);
    }
    AppendColumnViews(context, &context_views);
    AppendColumnViews(rows, &row_views);
    view = {candidates, context_views, row_views};
  }
  MadeUpRequest(const MadeUpRequest&) = delete;
  MadeUpRequest& operator=(const MadeUpRequest&) = delete;

  Columns context, rows;
  std::vector<ColumnView> context_views, row_views;
  RequestView view;
};

}  // namespace

absl::Status WarmUp(const Predictor& predictor, absl::Span<const std::unique_ptr<Workspace>> workspaces) {
  const ModelSpec& spec = predictor.file().spec();
  Workspace scratch(predictor);
  std::vector<float> scores;
  for (const size_t candidates : kEvaluated) {
    const MadeUpRequest request(spec, candidates);
    scores.resize(candidates);
    HILOMOE_RETURN_IF_ERROR(predictor.Predict(request.view, &scratch, absl::MakeSpan(scores)));
  }
  const MadeUpRequest large(spec, kWarmUpCandidates);
  for (const auto& workspace : workspaces) {
    HILOMOE_RETURN_IF_ERROR(predictor.encoder().Encode(large.view, &workspace->batch, nullptr));
  }
  return absl::OkStatus();
}

}  // namespace hilomoe
