// Flags that several sub-commands of hilomoe-train take.
#ifndef HILOMOE_TOOLS_TRAIN_SHARED_FLAGS_H_
#define HILOMOE_TOOLS_TRAIN_SHARED_FLAGS_H_

#include <string_view>

#include "absl/flags/declare.h"

ABSL_DECLARE_FLAG(int32_t, threads);
ABSL_DECLARE_FLAG(uint64_t, seed);

namespace hilomoe {

extern const std::string_view kSharedFlagsFile;  // for Command::flag_files

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_SHARED_FLAGS_H_
