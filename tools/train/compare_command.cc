#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "tools/train/commands.h"
#include "tools/train/compare.h"
#include "tools/train/run_flags.h"

ABSL_FLAG(int32_t, jobs, 0, "trainings at once, each a process of its own; 0: the usable CPUs by --run_threads");
ABSL_FLAG(int32_t, run_threads, 1, "threads of each training");
ABSL_FLAG(bool, retry_failed, false, "start runs again that failed");

namespace hilomoe {

Command CompareCommand() {
  return {
      .name = "compare",
      .usage = "--output=DIR [flags] COMPARISON",
      .summary = "trains a comparison's arms with several seeds and tests the differences; goes on where it was",
      .flag_files = {__FILE__, kRunFlagsFile},
      .prepare = [](const std::vector<std::string>& arguments) -> absl::StatusOr<Job> {
        CompareOptions options;
        options.program = "/proc/self/exe";
        options.data_dir = absl::GetFlag(FLAGS_data_dir);
        options.output_dir = absl::GetFlag(FLAGS_output);
        options.cache_dir = absl::GetFlag(FLAGS_cache_dir);
        options.save_every_s = absl::GetFlag(FLAGS_save_every_s);
        options.jobs = absl::GetFlag(FLAGS_jobs);
        options.run_threads = absl::GetFlag(FLAGS_run_threads);
        options.retry_failed = absl::GetFlag(FLAGS_retry_failed);
        if (arguments.size() != 1) return absl::InvalidArgumentError("say one comparison file");
        options.comparison_path = arguments[0];
        if (options.output_dir.empty()) return absl::InvalidArgumentError("--output: say where the runs go");
        if (options.jobs < 0 || options.jobs > 1024) {
          return absl::InvalidArgumentError(absl::StrCat("--jobs: ", options.jobs, " is out of range"));
        }
        if (options.run_threads < 1 || options.run_threads > 1024) {
          return absl::InvalidArgumentError(absl::StrCat("--run_threads: ", options.run_threads, " is out of range"));
        }
        return [options](std::FILE*) { return Compare(options); };
      }};
}

}  // namespace hilomoe
