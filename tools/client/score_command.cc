#include "tools/client/score_command.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "tools/client/connection_flags.h"
#include "tools/client/score_log.h"

ABSL_FLAG(std::string, input, "", "log to score: CSV or TSV, plain, .gz or .zst; - is the standard input");
ABSL_FLAG(std::string, output, "",
          "where the scores go: CSV, compressed if named .gz or .zst; - is the standard output");
ABSL_FLAG(std::vector<std::string>, keep_columns, {}, "columns of the log to put before the score, a,b,c");
ABSL_FLAG(std::string, group_by, "", "column whose equal neighbours travel as one request; empty: the model's own");
ABSL_FLAG(bool, flat, false, "one request per row");
ABSL_FLAG(int64_t, max_candidates, 1000, "rows of a request; longer groups are split");
ABSL_FLAG(int64_t, max_in_flight, 16, "requests under way at a time");
ABSL_FLAG(int64_t, retries, 3, "of a request that is answered UNAVAILABLE or RESOURCE_EXHAUSTED");
ABSL_FLAG(bool, metrics, true, "compute AUC and the like if the log has the model's label column; 17 bytes per row");

namespace hilomoe {
namespace {

absl::StatusOr<ScoreLogOptions> OptionsFromFlags(const std::vector<std::string>& arguments) {
  ScoreLogOptions options;
  HILOMOE_ASSIGN_OR_RETURN(options.server, ConnectionOptionsFromFlags());
  options.input = absl::GetFlag(FLAGS_input);
  if (arguments.size() > (options.input.empty() ? 1u : 0u)) {
    return absl::InvalidArgumentError(absl::StrCat("one log at a time; '", arguments.back(), "' is one too many"));
  }
  if (!arguments.empty()) options.input = arguments[0];
  if (options.input.empty())
    return absl::InvalidArgumentError("--input: say the log to score; - is the standard input");
  options.output = absl::GetFlag(FLAGS_output);
  if (options.output.empty()) {
    return absl::InvalidArgumentError("--output: say where the scores go; - is the standard output");
  }
  options.report = absl::GetFlag(FLAGS_report);
  options.keep_columns = absl::GetFlag(FLAGS_keep_columns);
  options.group_by = absl::GetFlag(FLAGS_group_by);
  options.flat = absl::GetFlag(FLAGS_flat);
  options.metrics = absl::GetFlag(FLAGS_metrics);

  constexpr int64_t kMost = 1'000'000;
  const int64_t max_candidates = absl::GetFlag(FLAGS_max_candidates);
  const int64_t max_in_flight = absl::GetFlag(FLAGS_max_in_flight);
  const int64_t deadline_ms = absl::GetFlag(FLAGS_deadline_ms);
  const int64_t retries = absl::GetFlag(FLAGS_retries);
  HILOMOE_RETURN_IF_ERROR(CheckRange("max_candidates", max_candidates, 1, kMost));
  HILOMOE_RETURN_IF_ERROR(CheckRange("max_in_flight", max_in_flight, 1, 10'000));
  HILOMOE_RETURN_IF_ERROR(CheckRange("deadline_ms", deadline_ms, 1, kMost));
  HILOMOE_RETURN_IF_ERROR(CheckRange("retries", retries, 0, 100));
  options.max_candidates = static_cast<size_t>(max_candidates);
  options.pipeline.max_in_flight = static_cast<size_t>(max_in_flight);
  options.pipeline.deadline = absl::Milliseconds(deadline_ms);
  options.pipeline.retries = static_cast<int>(retries);
  return options;
}

absl::StatusOr<Job> Prepare(const std::vector<std::string>& arguments) {
  HILOMOE_ASSIGN_OR_RETURN(ScoreLogOptions options, OptionsFromFlags(arguments));
  return Job([options = std::move(options)](std::FILE* messages) -> absl::Status {
    HILOMOE_ASSIGN_OR_RETURN(const ScoreReport report, ScoreLog(options, messages));
    std::fputs(report.ToText().c_str(), messages);
    return absl::OkStatus();
  });
}

}  // namespace

Command ScoreCommand() {
  Command command;
  command.name = "score";
  command.usage = "[flags] --output=SCORES LOG";
  command.summary = "Scores the rows of a log through a server, and says how good the scores are.";
  command.flag_files = {__FILE__, kConnectionFlagsFile};
  command.prepare = Prepare;
  return command;
}

}  // namespace hilomoe
