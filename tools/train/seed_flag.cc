#include <cstdint>

#include "absl/flags/flag.h"
#include "tools/train/shared_flags.h"

ABSL_FLAG(uint64_t, seed, 0, "of all that is random; 0: the config's, or 1");

namespace hilomoe {

const std::string_view kSeedFlagFile = __FILE__;

}  // namespace hilomoe
