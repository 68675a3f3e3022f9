#include "tools/client/connection_flags.h"

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "model/file_io.h"
#include "model/status_macros.h"

ABSL_FLAG(std::string, server, "127.0.0.1:8500", "address of the server, host:port or unix:path");
ABSL_FLAG(std::string, model, "", "name of the model; may be left out if the server has only one");
ABSL_FLAG(uint64_t, model_version, 0, "version of the model; 0: the newest that is served");
ABSL_FLAG(int64_t, deadline_ms, 1000, "of one attempt at a request");
ABSL_FLAG(std::string, report, "", "JSON file for the summary");
ABSL_FLAG(int64_t, connect_timeout_ms, 5000, "how long to try to reach the server");
ABSL_FLAG(bool, tls, false, "TLS; so do the other --tls_ flags");
ABSL_FLAG(std::string, tls_ca_file, "",
          "PEM file of who may have signed the server's certificate; default: the system's");
ABSL_FLAG(std::string, tls_certificate_file, "", "PEM file of the client's own certificate, for mutual TLS");
ABSL_FLAG(std::string, tls_key_file, "", "and of its key");
ABSL_FLAG(std::string, tls_server_name, "",
          "name that the server's certificate must have; default: the host of --server");

namespace hilomoe {
namespace {

absl::Status ReadTlsFlags(ConnectionOptions* options) {
  const auto read = [options](const std::string& path, std::string* text) -> absl::Status {
    if (path.empty()) return absl::OkStatus();
    options->tls = true;
    HILOMOE_ASSIGN_OR_RETURN(*text, ReadFile(path));
    return absl::OkStatus();
  };
  options->server_name = absl::GetFlag(FLAGS_tls_server_name);
  options->tls = absl::GetFlag(FLAGS_tls) || !options->server_name.empty();
  HILOMOE_RETURN_IF_ERROR(read(absl::GetFlag(FLAGS_tls_ca_file), &options->ca));
  HILOMOE_RETURN_IF_ERROR(read(absl::GetFlag(FLAGS_tls_certificate_file), &options->certificate));
  HILOMOE_RETURN_IF_ERROR(read(absl::GetFlag(FLAGS_tls_key_file), &options->key));
  if (options->certificate.empty() == options->key.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError("--tls_certificate_file and --tls_key_file go together");
}

}  // namespace

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
  HILOMOE_RETURN_IF_ERROR(ReadTlsFlags(&options));
  return options;
}

absl::Status CheckRange(std::string_view flag, int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--", absl::string_view(flag.data(), flag.size()), ": ", value,
                                                 " is not between ", least, " and ", most));
}

}  // namespace hilomoe
