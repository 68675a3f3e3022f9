// Flags of the sub-commands that train: train, and compare, which hands them on.
#ifndef HILOMOE_TOOLS_TRAIN_RUN_FLAGS_H_
#define HILOMOE_TOOLS_TRAIN_RUN_FLAGS_H_

#include <string>
#include <string_view>

#include "absl/flags/declare.h"

ABSL_DECLARE_FLAG(std::string, data_dir);
ABSL_DECLARE_FLAG(std::string, output);
ABSL_DECLARE_FLAG(std::string, cache_dir);
ABSL_DECLARE_FLAG(double, save_every_s);

namespace hilomoe {

extern const std::string_view kRunFlagsFile;  // for Command::flag_files

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_RUN_FLAGS_H_
