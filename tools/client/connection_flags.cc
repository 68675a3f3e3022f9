#include "tools/client/connection_flags.h"

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"

ABSL_FLAG(std::string, server, "127.0.0.1:8500", "address of the server, host:port or unix:path");
ABSL_FLAG(std::string, model, "", "name of the model; may be left out if the server has only one");
ABSL_FLAG(uint64_t, model_version, 0, "version of the model; 0: the newest that is served");
ABSL_FLAG(int64_t, deadline_ms, 1000, "of one attempt at a request");
ABSL_FLAG(std::string, report, "", "JSON file for the summary");
ABSL_FLAG(int64_t, connect_timeout_ms, 5000, "how long to try to reach the server");

namespace hilomoe {

constinit const std::string_view kConnectionFlagsFile = __FILE__;

absl::StatusOr<ConnectionOptions> ConnectionOptionsFromFlags() {
  ConnectionOptions options;
  options.address = absl::GetFlag(FLAGS_server);
  options.model = absl::GetFlag(FLAGS_model);
  options.version = absl::GetFlag(FLAGS_model_version);
  options.connect_timeout = absl::Milliseconds(absl::GetFlag(FLAGS_connect_timeout_ms));
  if (options.address.empty()) return absl::InvalidArgumentError("--server: say the address of a server");
  if (options.connect_timeout <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError("--connect_timeout_ms must be above 0");
  }
  return options;
}

absl::Status CheckRange(std::string_view flag, int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--", absl::string_view(flag.data(), flag.size()), ": ", value,
                                                 " is not between ", least, " and ", most));
}

}  // namespace hilomoe
