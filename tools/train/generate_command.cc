#include <memory>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "tools/common/progress_bar.h"
#include "tools/train/commands.h"
#include "tools/train/evaluation.h"
#include "tools/train/generate.h"
#include "tools/train/shared_flags.h"

ABSL_FLAG(std::string, directory, "", "where train, valid and test logs and ceiling.json go");
ABSL_FLAG(std::string, compression, "gzip", "none, gzip or zstd");
ABSL_FLAG(int64_t, rows, 1'000'000, "of the three logs together");
ABSL_FLAG(int64_t, users, 5'000, "users");
ABSL_FLAG(int64_t, items, 2'000, "items");
ABSL_FLAG(int64_t, topics, 12, "top-level interests");
ABSL_FLAG(int64_t, min_candidates, 5, "candidates of a request, at least");
ABSL_FLAG(int64_t, max_candidates, 20, "candidates of a request, at most");
ABSL_FLAG(int64_t, history_length, 20, "clicks kept in a user's history");

namespace hilomoe {
namespace {

absl::Status Generate(GenerateOptions options, std::FILE* messages) {
  ProgressBar progress({.label = "generate", .total = options.rows, .out = messages});
  options.progress = [&](int64_t rows) { progress.Update(rows); };
  GenerateReport report;
  HILOMOE_RETURN_IF_ERROR(GenerateLog(options, &report));
  progress.Finish();
  for (const GenerateReport::Split& split : report.splits) {
    std::fprintf(messages, "%s: %lld rows, %lld requests, %.2f %% clicks; true probabilities: %s\n", split.path.c_str(),
                 static_cast<long long>(split.rows), static_cast<long long>(split.requests),
                 100.0 * static_cast<double>(split.clicks) / static_cast<double>(split.rows),
                 MetricsText(split.ceiling).c_str());
  }
  return absl::OkStatus();
}

}  // namespace

Command GenerateCommand() {
  return {.name = "generate",
          .usage = "--directory=DIR [flags]",
          .summary = "writes a synthetic click log whose true probabilities are known",
          .flag_files = {__FILE__, kSeedFlagFile},
          .prepare = [](const std::vector<std::string>& arguments) -> absl::StatusOr<Job> {
            if (!arguments.empty()) return absl::InvalidArgumentError(absl::StrCat("unexpected '", arguments[0], "'"));
            GenerateOptions options;
            options.output_dir = absl::GetFlag(FLAGS_directory);
            options.rows = absl::GetFlag(FLAGS_rows);
            if (absl::GetFlag(FLAGS_seed) != 0) options.seed = absl::GetFlag(FLAGS_seed);
            options.users = absl::GetFlag(FLAGS_users);
            options.items = absl::GetFlag(FLAGS_items);
            options.topics = absl::GetFlag(FLAGS_topics);
            options.min_candidates = absl::GetFlag(FLAGS_min_candidates);
            options.max_candidates = absl::GetFlag(FLAGS_max_candidates);
            options.history_length = absl::GetFlag(FLAGS_history_length);
            const std::string compression = absl::GetFlag(FLAGS_compression);
            if (compression == "none") {
              options.compression = Compression::kNone;
            } else if (compression == "gzip") {
              options.compression = Compression::kGzip;
            } else if (compression == "zstd") {
              options.compression = Compression::kZstd;
            } else {
              return absl::InvalidArgumentError(
                  absl::StrCat("--compression: '", compression, "' is none of none, gzip, zstd"));
            }
            if (options.output_dir.empty()) return absl::InvalidArgumentError("--directory: say where the logs go");
            return [options](std::FILE* messages) { return Generate(options, messages); };
          }};
}

}  // namespace hilomoe
