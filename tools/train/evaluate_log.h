// Scoring a log with a checkpoint, without a server.
#ifndef HILOMOE_TOOLS_TRAIN_EVALUATE_LOG_H_
#define HILOMOE_TOOLS_TRAIN_EVALUATE_LOG_H_

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace hilomoe {

struct EvaluateOptions {
  std::string checkpoint;
  std::vector<std::string> logs;
  std::string output;     // may be empty: metrics only
  std::string report;     // JSON file for the metrics; may be empty
  bool tie_gaps = false;  // a second column: how far the row's routing is from a top-k tie, in logits
  int threads = 0;
};

// Writes one line per row, "score" or "score,tie_gap" after a header line, atomically, and prints the metrics to
// stdout when the log has labels. To a name that ends in .safetensors: "scores" F32 [rows], and where there are some
// "tie_gaps" F32, "labels" U8 and "groups" I64 (the bits of a hash of the group's cell). INVALID_ARGUMENT when a report
// is asked for and a log has no labels.
absl::Status EvaluateLog(const EvaluateOptions& options);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_EVALUATE_LOG_H_
