// The model that requests are scored with: every kind of feature, attention, experts, in corpus/model_file.
#ifndef HILOMOE_TESTS_FUZZ_FUZZ_MODEL_H_
#define HILOMOE_TESTS_FUZZ_FUZZ_MODEL_H_

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "model/encoded_batch.h"
#include "runtime/predictor.h"
#include "runtime/request_view.h"

namespace hilomoe {

// Requires that the rows of a batch that has been encoded are those of the model's tables. An address sanitizer knows
// no tables: a row too far is another tensor's.
void RequireRows(const Predictor& predictor, const EncodedBatch& batch);

class FuzzModel {
 public:
  FuzzModel();

  // Scores the request twice, in workspaces that held different requests before, and requires the same outcome, and of
  // a success probabilities. scores: one a candidate.
  absl::Status Score(const RequestView& request, absl::Span<float> scores);

  const ModelSpec& spec() const { return predictor_->file().spec(); }

 private:
  std::unique_ptr<Predictor> predictor_;
  std::unique_ptr<Workspace> first_, second_;
  std::vector<float> again_;
};

}  // namespace hilomoe

#endif  // HILOMOE_TESTS_FUZZ_FUZZ_MODEL_H_
