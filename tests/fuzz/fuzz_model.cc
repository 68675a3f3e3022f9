#include "tests/fuzz/fuzz_model.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/fuzz/fuzz_target.h"

namespace hilomoe {

FuzzModel::FuzzModel() {
  absl::StatusOr<ModelFile> file = ModelFile::Open(HILOMOE_FUZZ_CORPUS "/model_file/every_feature");
  Require(file.ok(), file.status().ToString());
  absl::StatusOr<std::unique_ptr<Predictor>> predictor = Predictor::Create(*std::move(file));
  Require(predictor.ok(), predictor.status().ToString());
  predictor_ = *std::move(predictor);
  first_ = std::make_unique<Workspace>(*predictor_);
  second_ = std::make_unique<Workspace>(*predictor_);
}

absl::Status FuzzModel::Score(const RequestView& request) {
  // The rows of an earlier request are not to be seen. One that asks for a single candidate, and has no columns, leaves
  // other rows behind than those of the last input.
  float alone = 0;
  (void)predictor_->Predict({1, {}, {}}, second_.get(), {&alone, 1});

  scores_.assign(request.num_candidates, -1);
  again_.assign(request.num_candidates, -2);
  absl::Status status = predictor_->Predict(request, first_.get(), absl::MakeSpan(scores_));
  const absl::Status repeated = predictor_->Predict(request, second_.get(), absl::MakeSpan(again_));
  Require(status == repeated, "the same request ends in two ways");
  if (!status.ok()) {
    Require(status.code() == absl::StatusCode::kInvalidArgument, status.ToString());
    return status;
  }
  for (const float score : scores_) Require(score >= 0 && score <= 1, absl::StrCat("a score of ", score));
  Require(scores_.empty() || std::memcmp(scores_.data(), again_.data(), scores_.size() * sizeof(float)) == 0,
          "the same request has two scores");
  return status;
}

}  // namespace hilomoe
