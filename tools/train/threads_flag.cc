#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "tools/train/shared_flags.h"

ABSL_FLAG(int32_t, threads, 0, "0: as many as this process may use (a resumed run keeps its number)");

namespace hilomoe {

const std::string_view kThreadsFlagFile = __FILE__;

absl::StatusOr<int> ThreadsFlag() {
  const int threads = absl::GetFlag(FLAGS_threads);
  if (threads >= 0 && threads <= 1024) return threads;
  return absl::InvalidArgumentError(absl::StrCat("--threads: ", threads, " is out of range"));
}

}  // namespace hilomoe
