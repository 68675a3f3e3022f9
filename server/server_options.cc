#include "server/server_options.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/reflection.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "model/status_macros.h"
#include "model/text_proto.h"

namespace hilomoe::v1 {

// A flag takes the names of the schema.
bool AbslParseFlag(absl::string_view text, ServerConfig::ModelMemory* memory, std::string* error) {
  if (ServerConfig::ModelMemory_Parse(std::string(text), memory)) return true;
  *error = "It is one of AUTO, COPY and MMAP.";
  return false;
}

std::string AbslUnparseFlag(ServerConfig::ModelMemory memory) { return ServerConfig::ModelMemory_Name(memory); }

}  // namespace hilomoe::v1

// One flag per field of ServerConfig, unset unless given.
ABSL_FLAG(std::optional<std::string>, model_repository, std::nullopt,
          "<root> of <root>/<model>/<version>/model.hilomoe");
ABSL_FLAG(std::optional<std::string>, listen_address, std::nullopt, "host:port of scoring, health and reflection");
ABSL_FLAG(std::optional<std::string>, metrics_address, std::nullopt, "host:port of Prometheus metrics over HTTP");
ABSL_FLAG(std::optional<uint32_t>, evaluation_threads, std::nullopt, "0 = what the cgroup and the affinity allow");
ABSL_FLAG(std::optional<uint32_t>, max_request_bytes, std::nullopt, "larger requests are refused");
ABSL_FLAG(std::optional<uint32_t>, max_candidates, std::nullopt, "of one request");
ABSL_FLAG(std::optional<uint32_t>, max_queued_candidates, std::nullopt, "waiting; more is refused at once");
ABSL_FLAG(std::optional<uint32_t>, split_candidates, std::nullopt,
          "requests of so many are split over idle evaluation threads; 0 = none");
ABSL_FLAG(std::optional<uint32_t>, drain_ms, std::nullopt, "SIGTERM: NOT_SERVING, but serving on, for so long");
ABSL_FLAG(std::optional<uint32_t>, drain_deadline_ms, std::nullopt, "then requests under way get so long to end");
ABSL_FLAG(std::optional<hilomoe::v1::ServerConfig::ModelMemory>, model_memory, std::nullopt,
          "of tables and vocabularies: COPY, MMAP (shared, may be larger than memory), or AUTO: COPY where it fits");

ABSL_FLAG(std::string, config, "", "file with a hilomoe.v1.ServerConfig as textproto");
ABSL_FLAG(std::string, port_file, "", "written once serving: {\"listen_port\": ..., \"metrics_port\": ...}");

namespace hilomoe {
namespace {

constexpr uint32_t kMaxThreads = 1024;
constexpr uint32_t kMinRequestBytes = 1024;
constexpr uint32_t kMaxDrainMs = 24 * 3600 * 1000;

// The flags of this file alone: libraries bring others that are not ours to offer.
std::vector<absl::CommandLineFlag*> OurFlags() {
  std::vector<absl::CommandLineFlag*> flags;
  for (const auto& [name, flag] : absl::GetAllFlags()) {
    if (absl::EndsWith(flag->Filename(), "server/server_options.cc")) flags.push_back(flag);
  }
  std::sort(flags.begin(), flags.end(), [](const auto* a, const auto* b) { return a->Name() < b->Name(); });
  return flags;
}

// absl::ParseCommandLine prints and exits with 1 on its own; values are parsed by the flags themselves here too.
// True when help is asked for.
absl::StatusOr<bool> SetFlags(int argc, const char* const* argv) {
  const std::vector<absl::CommandLineFlag*> flags = OurFlags();
  for (int i = 1; i < argc; ++i) {
    absl::string_view argument = argv[i];
    if (argument == "--help") return true;
    if (!absl::ConsumePrefix(&argument, "--")) {
      return absl::InvalidArgumentError(absl::StrCat("unexpected argument '", argv[i], "'; see --help"));
    }
    const size_t equals = argument.find('=');
    const absl::string_view name = argument.substr(0, equals);
    const auto flag = std::find_if(flags.begin(), flags.end(), [&](const auto* f) { return f->Name() == name; });
    if (flag == flags.end()) {
      return absl::InvalidArgumentError(absl::StrCat("unknown flag '--", name, "'; see --help"));
    }
    absl::string_view value;
    if (equals != absl::string_view::npos) {
      value = argument.substr(equals + 1);
    } else if (++i < argc) {
      value = argv[i];
    } else {
      return absl::InvalidArgumentError(absl::StrCat("--", name, ": a value is missing"));
    }
    if (std::string error; !(*flag)->ParseFrom(value, &error)) {
      return absl::InvalidArgumentError(absl::StrCat("--", name, ": '", value, "' is not a valid value. ", error));
    }
  }
  return false;
}

std::string DefaultValue(const google::protobuf::FieldDescriptor& field) {
  using Field = google::protobuf::FieldDescriptor;
  return field.cpp_type() == Field::CPPTYPE_STRING ? field.default_value_string()
         : field.cpp_type() == Field::CPPTYPE_ENUM ? field.default_value_enum()->name()
                                                   : absl::StrCat(field.default_value_uint32());
}

std::string HelpText() {
  std::string text =
      "Serves click-through-rate models over gRPC.\n\n"
      "  hilomoe-server --model_repository=<root> [--config=<file>] [flags]\n\nFlags:\n";
  for (const absl::CommandLineFlag* flag : OurFlags()) {
    absl::StrAppend(&text, "  --", flag->Name(), ": ", flag->Help());
    const auto* field = v1::ServerConfig::descriptor()->FindFieldByName(std::string(flag->Name()));
    if (field != nullptr && field->has_default_value()) {
      absl::StrAppend(&text, "; default ", DefaultValue(*field));
    }
    absl::StrAppend(&text, "\n");
  }
  return text;
}

// host:port, [v6]:port; port 0 = any free one.
absl::Status CheckAddress(std::string_view field, const std::string& address) {
  const size_t colon = address.rfind(':');
  const std::string host = address.substr(0, colon);
  uint32_t port = 0;
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (colon == std::string::npos || host.empty() || (host.find(':') != std::string::npos && !bracketed) ||
      !absl::SimpleAtoi(address.substr(colon + 1), &port) || port > std::numeric_limits<uint16_t>::max()) {
    return FieldError(field, absl::StrCat("'", address, "' is not host:port, such as 0.0.0.0:8500 or [::]:8500"));
  }
  return absl::OkStatus();
}

absl::Status CheckRange(std::string_view field, uint32_t value, uint32_t least, uint32_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return FieldError(field, absl::StrCat("must be from ", least, " to ", most, ", is ", value));
}

void ApplyFlags(v1::ServerConfig* config) {
  if (const auto value = absl::GetFlag(FLAGS_model_repository)) config->set_model_repository(*value);
  if (const auto value = absl::GetFlag(FLAGS_listen_address)) config->set_listen_address(*value);
  if (const auto value = absl::GetFlag(FLAGS_metrics_address)) config->set_metrics_address(*value);
  if (const auto value = absl::GetFlag(FLAGS_evaluation_threads)) config->set_evaluation_threads(*value);
  if (const auto value = absl::GetFlag(FLAGS_max_request_bytes)) config->set_max_request_bytes(*value);
  if (const auto value = absl::GetFlag(FLAGS_max_candidates)) config->set_max_candidates(*value);
  if (const auto value = absl::GetFlag(FLAGS_max_queued_candidates)) config->set_max_queued_candidates(*value);
  if (const auto value = absl::GetFlag(FLAGS_split_candidates)) config->set_split_candidates(*value);
  if (const auto value = absl::GetFlag(FLAGS_drain_ms)) config->set_drain_ms(*value);
  if (const auto value = absl::GetFlag(FLAGS_drain_deadline_ms)) config->set_drain_deadline_ms(*value);
  if (const auto value = absl::GetFlag(FLAGS_model_memory)) config->set_model_memory(*value);
}

}  // namespace

absl::Status ValidateServerConfig(const v1::ServerConfig& config) {
  HILOMOE_RETURN_IF_ERROR(CheckAddress("listen_address", config.listen_address()));
  HILOMOE_RETURN_IF_ERROR(CheckAddress("metrics_address", config.metrics_address()));
  if (config.metrics_address() == config.listen_address() && !absl::EndsWith(config.listen_address(), ":0")) {
    return FieldError("metrics_address", "must differ from listen_address");
  }
  constexpr uint32_t kMax = std::numeric_limits<int32_t>::max();
  HILOMOE_RETURN_IF_ERROR(CheckRange("evaluation_threads", config.evaluation_threads(), 0, kMaxThreads));
  HILOMOE_RETURN_IF_ERROR(CheckRange("max_request_bytes", config.max_request_bytes(), kMinRequestBytes, kMax));
  HILOMOE_RETURN_IF_ERROR(CheckRange("max_candidates", config.max_candidates(), 1, kMax));
  HILOMOE_RETURN_IF_ERROR(CheckRange("max_queued_candidates", config.max_queued_candidates(), 0, kMax));
  HILOMOE_RETURN_IF_ERROR(CheckRange("split_candidates", config.split_candidates(), 0, kMax));
  HILOMOE_RETURN_IF_ERROR(CheckRange("drain_ms", config.drain_ms(), 0, kMaxDrainMs));
  HILOMOE_RETURN_IF_ERROR(CheckRange("drain_deadline_ms", config.drain_deadline_ms(), 0, kMaxDrainMs));
  return absl::OkStatus();
}

absl::StatusOr<ServerOptions> ParseServerOptions(int argc, const char* const* argv) {
  ServerOptions options;
  HILOMOE_ASSIGN_OR_RETURN(const bool help, SetFlags(argc, argv));
  if (help) {
    options.help = HelpText();
    return options;
  }
  if (const std::string path = absl::GetFlag(FLAGS_config); !path.empty()) {
    HILOMOE_RETURN_IF_ERROR(
        ReadTextProto(path, &options.config, [&options] { return ValidateServerConfig(options.config); }));
  }
  ApplyFlags(&options.config);
  // The file was right, so what is wrong now came from a flag.
  if (const absl::Status status = ValidateServerConfig(options.config); !status.ok()) {
    return absl::Status(status.code(), absl::StrCat("--", status.message()));
  }
  if (options.config.model_repository().empty()) {
    return absl::InvalidArgumentError("model_repository is not set; give --model_repository or --config");
  }
  options.port_file = absl::GetFlag(FLAGS_port_file);
  return options;
}

}  // namespace hilomoe
