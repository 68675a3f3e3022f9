#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "tools/train/commands.h"
#include "tools/train/run_report.h"

ABSL_FLAG(std::string, run, "", "the --output directory of a training run");
ABSL_FLAG(std::string, page, "", "file for the page; empty: report.html in the run's directory");

namespace hilomoe {

Command ReportCommand() {
  return {.name = "report",
          .usage = "--run=DIR [flags]",
          .summary = "draws a training run's report.html from its metrics.jsonl",
          .flag_files = {__FILE__},
          .prepare = [](const std::vector<std::string>& arguments) -> absl::StatusOr<Job> {
            if (!arguments.empty()) return absl::InvalidArgumentError(absl::StrCat("unexpected '", arguments[0], "'"));
            const std::string run = absl::GetFlag(FLAGS_run);
            if (run.empty()) return absl::InvalidArgumentError("--run: say the directory");
            std::string page = absl::GetFlag(FLAGS_page);
            if (page.empty()) page = absl::StrCat(run, "/", kRunReportName);
            return [run, page](std::FILE*) { return WriteRunReport(run, page); };
          }};
}

}  // namespace hilomoe
