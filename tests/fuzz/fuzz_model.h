// The model that requests are scored with: every kind of feature, attention, experts, in corpus/model_file.
#ifndef HILOMOE_TESTS_FUZZ_FUZZ_MODEL_H_
#define HILOMOE_TESTS_FUZZ_FUZZ_MODEL_H_

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "runtime/predictor.h"
#include "runtime/request_view.h"

namespace hilomoe {

class FuzzModel {
 public:
  FuzzModel();

  // Scores the request twice, in workspaces that held different requests before, and requires the same outcome, and of
  // a success probabilities.
  absl::Status Score(const RequestView& request);

  const Predictor& predictor() const { return *predictor_; }
  // Of the last request that was scored.
  absl::Span<const float> scores() const { return scores_; }

 private:
  std::unique_ptr<Predictor> predictor_;
  std::unique_ptr<Workspace> first_, second_;
  std::vector<float> scores_, again_;
};

}  // namespace hilomoe

#endif  // HILOMOE_TESTS_FUZZ_FUZZ_MODEL_H_
