// Flags that several sub-commands of hilomoe-train take.
#ifndef HILOMOE_TOOLS_TRAIN_SHARED_FLAGS_H_
#define HILOMOE_TOOLS_TRAIN_SHARED_FLAGS_H_

#include <cstdint>
#include <string_view>

#include "absl/flags/declare.h"
#include "absl/status/statusor.h"

ABSL_DECLARE_FLAG(int32_t, threads);
ABSL_DECLARE_FLAG(uint64_t, seed);

namespace hilomoe {

// For Command::flag_files.
extern const std::string_view kThreadsFlagFile, kSeedFlagFile;

// The value of --threads, which must be from 0 to 1024.
absl::StatusOr<int> ThreadsFlag();

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_SHARED_FLAGS_H_
