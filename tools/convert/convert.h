// Checkpoint -> model file.
#ifndef HILOMOE_TOOLS_CONVERT_CONVERT_H_
#define HILOMOE_TOOLS_CONVERT_CONVERT_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "model/flops.h"
#include "model/model_file.h"
#include "tools/common/metrics.h"

namespace hilomoe {

// How far a score may be from the float32 reference's where tensors are stored in fewer bits. Rounding of a layer's
// inputs is correlated in the layers after it, and turns ties of top-k routing, so that no useful bound follows from
// the weights; sound models stay within a third of this.
inline constexpr double kRoundedTolerance = 0.05;

struct ConvertOptions {
  std::string checkpoint;  // directory
  std::string output;      // model file; directories above it are made
  StoragePrecision precision;
  std::string log;  // labelled; may be empty: quality is not measured
};

// Of the written model and, where it has tensors of fewer bits, of the same in float32.
struct MeasuredQuality {
  BinaryMetrics written;
  std::optional<BinaryMetrics> float32;
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
  StoragePrecision precision;
  std::optional<MeasuredQuality> quality;  // with a log
};

// The file is written beside, reopened, replayed and only then renamed to its name: DATA_LOSS and no file when a golden
// row deviates by more than the bound.
absl::StatusOr<ConvertReport> Convert(const ConvertOptions& options);

std::string ReportText(const ConvertReport& report);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_CONVERT_CONVERT_H_
