#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "model/status_macros.h"
#include "tools/train/commands.h"
#include "tools/train/evaluate_log.h"
#include "tools/train/shared_flags.h"

ABSL_FLAG(std::string, checkpoint, "", "checkpoint directory");
ABSL_FLAG(std::string, scores, "", "file for the scores, one line a row, or .safetensors; empty: metrics only");
ABSL_FLAG(std::string, report, "", "JSON file for the metrics; empty: none");
ABSL_FLAG(bool, tie_gaps, false, "a second column: the row's distance from a top-k tie, in logits");

namespace hilomoe {

Command EvaluateCommand() {
  return {.name = "evaluate",
          .usage = "--checkpoint=DIR [flags] LOG...",
          .summary = "scores logs with a checkpoint and prints AUC, gAUC and logloss",
          .flag_files = {__FILE__, kThreadsFlagFile},
          .prepare = [](const std::vector<std::string>& arguments) -> absl::StatusOr<Job> {
            EvaluateOptions options;
            options.checkpoint = absl::GetFlag(FLAGS_checkpoint);
            options.logs = arguments;
            options.output = absl::GetFlag(FLAGS_scores);
            options.report = absl::GetFlag(FLAGS_report);
            options.tie_gaps = absl::GetFlag(FLAGS_tie_gaps);
            HILOMOE_ASSIGN_OR_RETURN(options.threads, ThreadsFlag());
            if (options.checkpoint.empty()) return absl::InvalidArgumentError("--checkpoint: say the directory");
            if (options.logs.empty()) return absl::InvalidArgumentError("say at least one log to score");
            return [options](std::FILE*) { return EvaluateLog(options); };
          }};
}

}  // namespace hilomoe
