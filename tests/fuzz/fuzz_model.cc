#include "tests/fuzz/fuzz_model.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/fuzz/fuzz_target.h"

namespace hilomoe {

void RequireRows(const Predictor& predictor, const EncodedBatch& batch) {
  const ModelSpec& spec = predictor.file().spec();
  for (size_t f = 0; f < spec.features().size(); ++f) {
    const FeatureSpec& feature = spec.features()[f];
    const EncodedFeature& encoded = batch.features[f];
    const size_t rows = feature.is_context() ? batch.context_rows : batch.candidate_rows;
    if (feature.is_pooled()) {
      Require(encoded.offsets.size() == rows + 1 && encoded.offsets[0] == 0 &&
                  std::is_sorted(encoded.offsets.begin(), encoded.offsets.end()) &&
                  encoded.offsets[rows] == encoded.rows.size(),
              "offsets that do not fit the rows");
      for (size_t r = 0; r < rows; ++r) {
        Require(encoded.offsets[r + 1] - encoded.offsets[r] <= feature.max_length, "more ids than max_length");
      }
    } else {
      Require((feature.is_number() ? encoded.values.size() : encoded.rows.size()) == rows, "not one value a row");
    }
    for (const uint32_t row : encoded.rows) {
      Require(row < predictor.file().table_rows()[feature.table], "a row that the table has not");
    }
  }
}

FuzzModel::FuzzModel() {
  absl::StatusOr<ModelFile> file = ModelFile::Open(HILOMOE_FUZZ_CORPUS "/model_file/every_feature");
  Require(file.ok(), file.status().ToString());
  absl::StatusOr<std::unique_ptr<Predictor>> predictor = Predictor::Create(*std::move(file));
  Require(predictor.ok(), predictor.status().ToString());
  predictor_ = *std::move(predictor);
  first_ = std::make_unique<Workspace>(*predictor_);
  second_ = std::make_unique<Workspace>(*predictor_);
}

absl::Status FuzzModel::Score(const RequestView& request, absl::Span<float> scores) {
  // The rows of an earlier request are not to be seen. One that asks for a single candidate, and has no columns, leaves
  // other rows behind than those of the last input.
  float alone = 0;
  (void)predictor_->Predict({1, {}, {}}, second_.get(), {&alone, 1});

  Require(scores.size() == request.num_candidates, "not one score a candidate");
  std::fill(scores.begin(), scores.end(), -1.0F);
  again_.assign(request.num_candidates, -2);
  absl::Status status = predictor_->Predict(request, first_.get(), scores);
  const absl::Status repeated = predictor_->Predict(request, second_.get(), absl::MakeSpan(again_));
  Require(status == repeated, "the same request ends in two ways");
  if (!status.ok()) {
    Require(status.code() == absl::StatusCode::kInvalidArgument, status.ToString());
    return status;
  }
  RequireRows(*predictor_, first_->batch);
  for (const float score : scores) Require(score >= 0 && score <= 1, absl::StrCat("a score of ", score));
  Require(scores.empty() || std::memcmp(scores.data(), again_.data(), scores.size() * sizeof(float)) == 0,
          "the same request has two scores");
  return status;
}

}  // namespace hilomoe
