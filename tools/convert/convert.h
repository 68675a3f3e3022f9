// Checkpoint -> model file.
#ifndef HILOMOE_TOOLS_CONVERT_CONVERT_H_
#define HILOMOE_TOOLS_CONVERT_CONVERT_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "model/flops.h"

namespace hilomoe {

struct ConvertOptions {
  std::string checkpoint;  // directory
  std::string output;      // model file; directories above it are made
};

struct ConvertReport {
  uint64_t file_bytes = 0;
  uint64_t embedding_bytes = 0;
  uint64_t vocabulary_bytes = 0;
  uint64_t dense_bytes = 0;  // all other tensors
  Flops flops;
  int golden_rows = 0;
  int skipped_rows = 0;
  double deviation = 0;  // largest, of a golden row's served score from the reference's
  double tolerance = 0;  // what it may be
  std::string instruction_set;
};

// The file is written beside, reopened, replayed and only then renamed to its name: DATA_LOSS and no file when a golden
// row deviates by more than the bound.
absl::StatusOr<ConvertReport> Convert(const ConvertOptions& options);

std::string ReportText(const ConvertReport& report);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_CONVERT_CONVERT_H_
