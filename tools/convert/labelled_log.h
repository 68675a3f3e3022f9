// How good a served model is on a labelled log.
#ifndef HILOMOE_TOOLS_CONVERT_LABELLED_LOG_H_
#define HILOMOE_TOOLS_CONVERT_LABELLED_LOG_H_

#include <string>

#include "absl/status/statusor.h"
#include "model/checkpoint.h"
#include "runtime/predictor.h"
#include "tools/common/metrics.h"

namespace hilomoe {

// Scores every row with the predictor, as one context a candidate. `checkpoint`: that the model was made of; its config
// names the label and the groups. INVALID_ARGUMENT for a log without labels or rows; else the log reader's errors.
absl::StatusOr<BinaryMetrics> EvaluateLabelledLog(const Predictor& predictor, const Checkpoint& checkpoint,
                                                  const std::string& log);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_CONVERT_LABELLED_LOG_H_
