#include "tools/train/run_flags.h"

#include "absl/flags/flag.h"

ABSL_FLAG(std::string, data_dir, ".", "directory that the config's log paths are relative to");
ABSL_FLAG(std::string, output, "", "directory for what is made, and for what it takes to go on after an interruption");
ABSL_FLAG(
    std::string, cache_dir, "",
    "directory for the encoded logs, which later runs over the same logs reuse and several runs may share; empty: "
    "cache in the output directory");
ABSL_FLAG(double, save_every_s, 60, "seconds between saves to go on from after an interruption");

namespace hilomoe {

const std::string_view kRunFlagsFile = __FILE__;

}  // namespace hilomoe
