#include "tools/bench/model_command.h"

#include <cstdint>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "tools/bench/bench_model.h"

ABSL_FLAG(std::string, output, "", "where the model file goes, as .../<model>/<version>/model.hilomoe");
ABSL_FLAG(uint64_t, model_seed, hilomoe::bench::BenchModelOptions().seed, "of the weights");
ABSL_FLAG(int64_t, model_ids, hilomoe::bench::BenchModelOptions().ids, "of every categorical feature");
ABSL_FLAG(int64_t, top_k, 0, "experts that are kept; 0: dense routing");
ABSL_FLAG(std::string, precision, "float32", "float32, bfloat16 or int8");

namespace hilomoe::bench {
namespace {

absl::StatusOr<Job> Prepare(const std::vector<std::string>& arguments) {
  if (!arguments.empty()) return absl::InvalidArgumentError(absl::StrCat("unexpected '", arguments[0], "'"));
  const std::string output = absl::GetFlag(FLAGS_output), precision = absl::GetFlag(FLAGS_precision);
  const int64_t ids = absl::GetFlag(FLAGS_model_ids), top_k = absl::GetFlag(FLAGS_top_k);
  BenchModelOptions options;
  if (output.empty()) return absl::InvalidArgumentError("--output: must be given");
  if (ids < 1 || ids > 10'000'000) return absl::InvalidArgumentError("--model_ids: must be from 1 to 10000000");
  if (top_k < 0 || top_k >= options.experts) {
    return absl::InvalidArgumentError(absl::StrCat("--top_k: must be from 0 to ", options.experts - 1));
  }
  bool known = false;
  for (const Precision of : {Precision::kFloat32, Precision::kBfloat16, Precision::kInt8}) {
    if (precision != PrecisionName(of)) continue;
    options.precision = of;
    known = true;
  }
  if (!known) return absl::InvalidArgumentError("--precision: must be float32, bfloat16 or int8");
  options.ids = static_cast<uint32_t>(ids);
  options.top_k = static_cast<int>(top_k);
  options.seed = absl::GetFlag(FLAGS_model_seed);
  return Job([options, output](std::FILE*) { return WriteBenchModel(options, output); });
}

}  // namespace

Command ModelCommand() {
  return {.name = "model",
          .usage = "--output=FILE [flags]",
          .summary = "Writes the bench model, for a server to serve.",
          .flag_files = {__FILE__},
          .prepare = Prepare};
}

}  // namespace hilomoe::bench
