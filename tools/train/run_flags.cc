#include "tools/train/run_flags.h"

#include "absl/flags/flag.h"

ABSL_FLAG(std::string, data_dir, ".", "directory that the config's log paths are relative to");
ABSL_FLAG(std::string, output, "", "directory for the checkpoint and, while training, for what --resume needs");
ABSL_FLAG(
    std::string, cache_dir, "",
    "directory for the encoded logs, which later runs over the same logs reuse and several runs may share; empty: "
    "cache in the output directory");
ABSL_FLAG(double, save_every_s, 60, "seconds between saves for --resume");

namespace hilomoe {

const std::string_view kRunFlagsFile = __FILE__;

}  // namespace hilomoe
