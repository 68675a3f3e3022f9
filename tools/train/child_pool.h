// Runs programs side by side, so many at once, and sees to it that none outlives the caller.
#ifndef HILOMOE_TOOLS_TRAIN_CHILD_POOL_H_
#define HILOMOE_TOOLS_TRAIN_CHILD_POOL_H_

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace hilomoe {

struct ChildJob {
  size_t id = 0;                     // the caller's
  std::vector<std::string> command;  // program, arguments
  std::string log_path;              // stdout and stderr are appended
};

struct ChildPoolOptions {
  int jobs = 1;                                   // at once
  std::function<std::optional<ChildJob>()> next;  // the next job; nullopt: none now, ask again when one has ended
  // A child has ended: OK for exit code 0, else what it says (the last line of its log, the signal). Not called for
  // children that were stopped.
  std::function<void(const ChildJob&, const absl::Status&)> done;
  std::function<void(size_t running)> tick;  // a few times a second
};

// Runs until next() has none and all children have ended. SIGINT and SIGTERM are taken meanwhile: the children get
// SIGTERM, at the second signal SIGKILL, and when they have ended CANCELLED is returned. Children are process groups of
// their own, so that the terminal's Ctrl-C reaches the caller alone, and get SIGTERM when the caller's thread dies.
// One thread; the process must have no others.
absl::Status RunChildren(const ChildPoolOptions& options);

// The last line of a log that is not blank; empty when there is none.
std::string LastLine(const std::string& path);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_CHILD_POOL_H_
