#include "server/validate_config.h"

#include <sys/un.h>

#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "model/status_macros.h"
#include "model/text_proto.h"
#include "server/model_policy.h"

namespace hilomoe {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

template <typename T>
absl::Status CheckRange(const v1::Setting& setting, const std::string& name, T value) {
  const bool low = setting.has_least() && !(value >= static_cast<T>(setting.least()));
  const bool high = setting.has_most() && !(value <= static_cast<T>(setting.most()));
  if (!low && !high) return absl::OkStatus();
  return FieldError(
      name, absl::StrCat("must be ",
                         !setting.has_most()    ? absl::StrCat("at least ", setting.least())
                         : !setting.has_least() ? absl::StrCat("at most ", setting.most())
                                                : absl::StrCat("from ", setting.least(), " to ", setting.most()),
                         ", is ", value));
}

// index < 0: not repeated.
absl::Status CheckNumber(const Message& message, const FieldDescriptor* field, int index, const std::string& name) {
  const auto* get = message.GetReflection();
  const v1::Setting& setting = field->options().GetExtension(v1::setting);
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return CheckRange(setting, name,
                        index < 0 ? get->GetInt32(message, field) : get->GetRepeatedInt32(message, field, index));
    case FieldDescriptor::CPPTYPE_INT64:
      return CheckRange(setting, name,
                        index < 0 ? get->GetInt64(message, field) : get->GetRepeatedInt64(message, field, index));
    case FieldDescriptor::CPPTYPE_UINT32:
      return CheckRange<uint64_t>(
          setting, name, index < 0 ? get->GetUInt32(message, field) : get->GetRepeatedUInt32(message, field, index));
    case FieldDescriptor::CPPTYPE_UINT64:
      return CheckRange(setting, name,
                        index < 0 ? get->GetUInt64(message, field) : get->GetRepeatedUInt64(message, field, index));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return CheckRange(setting, name,
                        index < 0 ? get->GetDouble(message, field) : get->GetRepeatedDouble(message, field, index));
    case FieldDescriptor::CPPTYPE_FLOAT:
      return CheckRange(setting, name,
                        index < 0 ? get->GetFloat(message, field) : get->GetRepeatedFloat(message, field, index));
    default:
      return absl::OkStatus();
  }
}

// Every value that is set, in messages inside as well.
absl::Status CheckRanges(const Message& message, const std::string& prefix) {
  const auto* reflection = message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    const int size = field->is_repeated() ? reflection->FieldSize(message, field) : 1;
    for (int i = 0; i < size; ++i) {
      const int index = field->is_repeated() ? i : -1;
      const std::string name =
          absl::StrCat(prefix, field->name(), field->is_repeated() ? absl::StrCat("[", i, "]") : "");
      if (field->message_type() == nullptr) {
        HILOMOE_RETURN_IF_ERROR(CheckNumber(message, field, index, name));
        continue;
      }
      const Message& inner = field->is_repeated() ? reflection->GetRepeatedMessage(message, field, i)
                                                  : reflection->GetMessage(message, field);
      HILOMOE_RETURN_IF_ERROR(CheckRanges(inner, absl::StrCat(name, ".")));
    }
  }
  return absl::OkStatus();
}

// Of host:port and [v6]:port; empty for others.
std::string HostOf(const std::string& address) {
  const size_t colon = address.rfind(':');
  const std::string host = address.substr(0, colon);
  uint32_t port = 0;
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (colon == std::string::npos || (host.find(':') != std::string::npos && !bracketed) ||
      !absl::SimpleAtoi(address.substr(colon + 1), &port) || port > std::numeric_limits<uint16_t>::max()) {
    return "";
  }
  return host;
}

bool IsUnix(const std::string& address) { return absl::StartsWith(address, "unix:"); }

// Who can connect to it is on this machine.
bool IsLocal(const std::string& address) {
  const std::string host = HostOf(address);
  return IsUnix(address) || absl::StartsWith(host, "127.") || host == "[::1]" || host == "localhost";
}

// host:port, [v6]:port; port 0 = any free one.
absl::Status CheckHttpAddress(std::string_view field, const std::string& address) {
  if (!HostOf(address).empty()) return absl::OkStatus();
  return FieldError(field, absl::StrCat("'", address, "' is not host:port, such as 0.0.0.0:8500 or [::]:8500"));
}

absl::Status CheckGrpcAddress(std::string_view field, const std::string& address) {
  if (!IsUnix(address)) return CheckHttpAddress(field, address);
  constexpr size_t kMaxUnixAddress = sizeof("unix:") - 1 + sizeof(sockaddr_un::sun_path) - 1;
  if (absl::StartsWith(address, "unix:/") && address.size() <= kMaxUnixAddress) return absl::OkStatus();
  return FieldError(field, absl::StrCat("'", address, "' is not unix: and an absolute path of at most ",
                                        sizeof(sockaddr_un::sun_path) - 1, " bytes"));
}

absl::Status CheckAddresses(const v1::ServerConfig& config) {
  HILOMOE_RETURN_IF_ERROR(CheckGrpcAddress("listen_address", config.listen_address()));
  HILOMOE_RETURN_IF_ERROR(CheckHttpAddress("metrics_address", config.metrics_address()));
  std::vector<std::pair<std::string, std::string>> named = {{"listen_address", config.listen_address()},
                                                            {"metrics_address", config.metrics_address()}};
  if (!config.admin_address().empty()) {
    HILOMOE_RETURN_IF_ERROR(CheckGrpcAddress("admin_address", config.admin_address()));
    named.emplace_back("admin_address", config.admin_address());
  }
  if (!config.probe_address().empty()) {
    HILOMOE_RETURN_IF_ERROR(CheckGrpcAddress("probe_address", config.probe_address()));
    named.emplace_back("probe_address", config.probe_address());
  }
  for (size_t i = 0; i < named.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (named[i].second == named[j].second && !absl::EndsWith(named[i].second, ":0")) {
        return FieldError(named[i].first, absl::StrCat("must differ from ", named[j].first));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status CheckTls(const v1::Tls& tls) {
  if (tls.certificate_file().empty()) return FieldError("certificate_file", "is not set");
  if (tls.key_file().empty()) return FieldError("key_file", "is not set");
  if (tls.has_client_ca_file() && tls.client_ca_file().empty()) return FieldError("client_ca_file", "is empty");
  if (tls.has_require_client_certificate() && tls.require_client_certificate() && !tls.has_client_ca_file()) {
    return FieldError("require_client_certificate", "needs client_ca_file");
  }
  return absl::OkStatus();
}

// Whoever reaches the admin port decides what is served.
absl::Status CheckAdmin(const v1::ServerConfig& config) {
  if (config.has_admin_tls()) {
    if (config.admin_address().empty()) return FieldError("admin_tls", "is set, but admin_address is not");
    HILOMOE_RETURN_IF_ERROR(InField("admin_tls", CheckTls(config.admin_tls())));
    if (!config.admin_tls().has_client_ca_file()) {
      return FieldError("admin_tls.client_ca_file", "is not set: admins need certificates");
    }
    if (!config.admin_tls().require_client_certificate()) {
      return FieldError("admin_tls.require_client_certificate", "must not be false: admins need certificates");
    }
  } else if (!config.admin_address().empty() && !IsLocal(config.admin_address())) {
    return FieldError("admin_address", absl::StrCat("'", config.admin_address(),
                                                    "' can be reached from other machines: set admin_tls, or take "
                                                    "127.0.0.1, [::1] or unix:"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateRanges(const Message& message) { return CheckRanges(message, ""); }

absl::Status ValidateServerConfig(const v1::ServerConfig& config) {
  HILOMOE_RETURN_IF_ERROR(CheckRanges(config, ""));
  HILOMOE_RETURN_IF_ERROR(CheckAddresses(config));
  if (config.has_tls()) HILOMOE_RETURN_IF_ERROR(InField("tls", CheckTls(config.tls())));
  HILOMOE_RETURN_IF_ERROR(CheckAdmin(config));
  if (config.max_grpc_bytes() < config.max_request_bytes()) {
    return FieldError("max_grpc_bytes", absl::StrCat("must be at least max_request_bytes, ", config.max_request_bytes(),
                                                     ", is ", config.max_grpc_bytes()));
  }
  return ValidateModelPolicies(config);
}

}  // namespace hilomoe
