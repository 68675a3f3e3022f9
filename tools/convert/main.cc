// hilomoe-convert: makes the file that the server loads out of a checkpoint.
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "tools/common/command_line.h"
#include "tools/convert/convert.h"

namespace hilomoe {

// Precision as a flag, found by absl::flags.
bool AbslParseFlag(absl::string_view text, Precision* precision, std::string* error) {
  const std::optional<Precision> parsed = PrecisionFromName(text);
  if (!parsed.has_value()) *error = "say float32, bfloat16 or int8";
  *precision = parsed.value_or(Precision::kFloat32);
  return parsed.has_value();
}
std::string AbslUnparseFlag(Precision precision) { return PrecisionName(precision); }

}  // namespace hilomoe

ABSL_FLAG(std::string, checkpoint, "", "checkpoint directory, as hilomoe-train writes it");
ABSL_FLAG(std::string, output, "", "model file, <repository>/<model>/<version>/model.hilomoe to publish it");
ABSL_FLAG(hilomoe::Precision, embeddings, hilomoe::Precision::kFloat32, "of embedding tables: float32, bfloat16, int8");
ABSL_FLAG(hilomoe::Precision, dense, hilomoe::Precision::kFloat32, "of the blocks' weights and their products");
ABSL_FLAG(hilomoe::Precision, experts, hilomoe::Precision::kFloat32, "of what the experts add (U), and of its product");
ABSL_FLAG(std::string, log, "", "labelled log: tells AUC and logloss of the model, and beside float32 what they lose");

namespace {

hilomoe::Command TheCommand() {
  return {.name = "",
          .usage = "--checkpoint=DIR --output=FILE",
          .summary = "folds batch norm, stacks, verifies and writes a model file",
          .flag_files = {__FILE__},
          .prepare = [](const std::vector<std::string>& arguments) -> absl::StatusOr<hilomoe::Job> {
            if (!arguments.empty()) return absl::InvalidArgumentError(absl::StrCat("unexpected '", arguments[0], "'"));
            const hilomoe::ConvertOptions options{
                absl::GetFlag(FLAGS_checkpoint),
                absl::GetFlag(FLAGS_output),
                {absl::GetFlag(FLAGS_embeddings), absl::GetFlag(FLAGS_dense), absl::GetFlag(FLAGS_experts)},
                absl::GetFlag(FLAGS_log)};
            if (options.checkpoint.empty()) return absl::InvalidArgumentError("--checkpoint: say the directory");
            if (options.output.empty()) return absl::InvalidArgumentError("--output: say the model file to write");
            return [options](std::FILE* messages) -> absl::Status {
              HILOMOE_ASSIGN_OR_RETURN(const hilomoe::ConvertReport report, hilomoe::Convert(options));
              std::fprintf(messages, "%s: %s", options.output.c_str(), hilomoe::ReportText(report).c_str());
              return absl::OkStatus();
            };
          }};
}

}  // namespace

int main(int argc, char** argv) { return hilomoe::RunCommands("hilomoe-convert", argc, argv, {TheCommand()}); }
