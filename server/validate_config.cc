#include "server/validate_config.h"

#include <limits>
#include <string>
#include <string_view>
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

}  // namespace

absl::Status ValidateRanges(const Message& message) { return CheckRanges(message, ""); }

absl::Status ValidateServerConfig(const v1::ServerConfig& config) {
  HILOMOE_RETURN_IF_ERROR(CheckAddress("listen_address", config.listen_address()));
  HILOMOE_RETURN_IF_ERROR(CheckAddress("metrics_address", config.metrics_address()));
  if (config.metrics_address() == config.listen_address() && !absl::EndsWith(config.listen_address(), ":0")) {
    return FieldError("metrics_address", "must differ from listen_address");
  }
  HILOMOE_RETURN_IF_ERROR(ValidateRanges(config));
  return ValidateModelPolicies(config);
}

}  // namespace hilomoe
