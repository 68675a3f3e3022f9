#include "tools/train/shared_flags.h"

#include <cstdint>

#include "absl/flags/flag.h"

ABSL_FLAG(int32_t, threads, 0, "0: as many as this process may use (a resumed run keeps its number)");
ABSL_FLAG(uint64_t, seed, 0, "of all that is random; 0: the config's, or 1");

namespace hilomoe {

const std::string_view kSharedFlagsFile = __FILE__;

}  // namespace hilomoe
