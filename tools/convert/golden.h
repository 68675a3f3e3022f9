// Golden rows: inputs from the training log with the scores the plain reference gives them, and how far a correct
// float32 evaluation may be from these.
#ifndef HILOMOE_TOOLS_CONVERT_GOLDEN_H_
#define HILOMOE_TOOLS_CONVERT_GOLDEN_H_

#include <vector>

#include "absl/status/statusor.h"
#include "hilomoe/v1/model_file.pb.h"
#include "model/checkpoint.h"
#include "model/model_spec.h"
#include "runtime/request_encoder.h"

namespace hilomoe {

struct Golden {
  std::vector<v1::GoldenRequest> requests;  // with scores
  double tolerance = 0;  // largest bound of any row: |score - float32 score| <= s (1 - s) * Rounded::Bound + 2^-24
  int rows = 0;
  int skipped = 0;  // rows too close to a top-k tie for float32 to decide
};

// Every eighth sample lends its context to the eight samples that follow, so that contexts and candidates meet in new
// combinations, too.
absl::StatusOr<Golden> MakeGolden(const ModelSpec& spec, const Checkpoint& checkpoint, const RequestEncoder& encoder);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_CONVERT_GOLDEN_H_
