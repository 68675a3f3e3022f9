#include "server/server_options.h"

#include <map>
#include <utility>
#include <vector>

#include "absl/flags/marshalling.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "model/status_macros.h"
#include "model/text_proto.h"
#include "server/validate_config.h"

namespace hilomoe {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// Flags beside the fields of ServerConfig.
constexpr char kConfigFlag[] = "config";
constexpr char kPortFileFlag[] = "port_file";

// As given; the last one of a name wins.
using FlagValues = std::map<std::string, std::string, std::less<>>;

// The field that the flag sets; null when there is none. Messages and lists stand in the config file only.
const FieldDescriptor* FlagField(absl::string_view name) {
  const FieldDescriptor* field = v1::ServerConfig::descriptor()->FindFieldByName(std::string(name));
  return field == nullptr || field->is_repeated() || field->message_type() != nullptr ? nullptr : field;
}

// `help` is set when that is asked for, and then nothing else counts.
absl::StatusOr<FlagValues> SplitArguments(int argc, const char* const* argv, bool* help) {
  FlagValues values;
  for (int i = 1; i < argc; ++i) {
    absl::string_view argument = argv[i];
    if (argument == "--help") {
      *help = true;
      return values;
    }
    if (!absl::ConsumePrefix(&argument, "--")) {
      return absl::InvalidArgumentError(absl::StrCat("unexpected argument '", argv[i], "'; see --help"));
    }
    const size_t equals = argument.find('=');
    const absl::string_view name = argument.substr(0, equals);
    const FieldDescriptor* field = FlagField(name);
    if (field == nullptr && name != kConfigFlag && name != kPortFileFlag) {
      return absl::InvalidArgumentError(absl::StrCat("unknown flag '--", name, "'; see --help"));
    }
    absl::string_view value;
    if (equals != absl::string_view::npos) {
      value = argument.substr(equals + 1);
    } else if (field != nullptr && field->cpp_type() == FieldDescriptor::CPPTYPE_BOOL) {
      value = "true";
    } else if (++i < argc) {
      value = argv[i];
    } else {
      return absl::InvalidArgumentError(absl::StrCat("--", name, ": a value is missing"));
    }
    values.insert_or_assign(std::string(name), std::string(value));
  }
  return values;
}

template <typename T, typename Set>
bool ParseInto(const std::string& text, std::string* error, Set set) {
  T value{};
  if (!absl::ParseFlag(text, &value, error)) return false;
  set(value);
  return true;
}

bool SetEnum(const FieldDescriptor* field, const std::string& text, Message* message, std::string* error) {
  if (const auto* value = field->enum_type()->FindValueByName(text)) {
    message->GetReflection()->SetEnum(message, field, value);
    return true;
  }
  std::vector<std::string> names;
  for (int i = 0; i < field->enum_type()->value_count(); ++i) names.push_back(field->enum_type()->value(i)->name());
  *error = absl::StrCat("It is one of ", absl::StrJoin(names, ", "), ".");
  return false;
}

bool SetField(const FieldDescriptor* field, const std::string& text, Message* message, std::string* error) {
  const auto* reflection = message->GetReflection();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return ParseInto<int32_t>(text, error, [&](auto v) { reflection->SetInt32(message, field, v); });
    case FieldDescriptor::CPPTYPE_INT64:
      return ParseInto<int64_t>(text, error, [&](auto v) { reflection->SetInt64(message, field, v); });
    case FieldDescriptor::CPPTYPE_UINT32:
      return ParseInto<uint32_t>(text, error, [&](auto v) { reflection->SetUInt32(message, field, v); });
    case FieldDescriptor::CPPTYPE_UINT64:
      return ParseInto<uint64_t>(text, error, [&](auto v) { reflection->SetUInt64(message, field, v); });
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return ParseInto<double>(text, error, [&](auto v) { reflection->SetDouble(message, field, v); });
    case FieldDescriptor::CPPTYPE_FLOAT:
      return ParseInto<float>(text, error, [&](auto v) { reflection->SetFloat(message, field, v); });
    case FieldDescriptor::CPPTYPE_BOOL:
      return ParseInto<bool>(text, error, [&](auto v) { reflection->SetBool(message, field, v); });
    case FieldDescriptor::CPPTYPE_ENUM:
      return SetEnum(field, text, message, error);
    case FieldDescriptor::CPPTYPE_STRING:
      reflection->SetString(message, field, text);
      return true;
    case FieldDescriptor::CPPTYPE_MESSAGE:
      break;
  }
  return false;
}

std::string DefaultText(const FieldDescriptor& field) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return absl::StrCat(field.default_value_int32());
    case FieldDescriptor::CPPTYPE_INT64:
      return absl::StrCat(field.default_value_int64());
    case FieldDescriptor::CPPTYPE_UINT32:
      return absl::StrCat(field.default_value_uint32());
    case FieldDescriptor::CPPTYPE_UINT64:
      return absl::StrCat(field.default_value_uint64());
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return absl::StrCat(field.default_value_double());
    case FieldDescriptor::CPPTYPE_FLOAT:
      return absl::StrCat(field.default_value_float());
    case FieldDescriptor::CPPTYPE_BOOL:
      return field.default_value_bool() ? "true" : "false";
    case FieldDescriptor::CPPTYPE_ENUM:
      return field.default_value_enum()->name();
    case FieldDescriptor::CPPTYPE_STRING:
      return field.default_value_string();
    case FieldDescriptor::CPPTYPE_MESSAGE:
      break;
  }
  return "";
}

void AppendHelp(const FieldDescriptor& field, absl::string_view name, std::string* text) {
  absl::StrAppend(text, "  ", name, ": ", field.options().GetExtension(v1::setting).help());
  if (field.has_default_value()) absl::StrAppend(text, "; default ", DefaultText(field));
  absl::StrAppend(text, "\n");
}

// The settings of messages and lists, as paths: "tls.key_file", "models[].name".
void AppendFileHelp(const Descriptor& type, const std::string& prefix, std::string* text) {
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    const std::string name = absl::StrCat(prefix, field.name(), field.is_repeated() ? "[]" : "");
    if (prefix.empty() && FlagField(field.name()) != nullptr) continue;
    AppendHelp(field, name, text);
    if (field.message_type() != nullptr) AppendFileHelp(*field.message_type(), absl::StrCat(name, "."), text);
  }
}

std::string HelpText() {
  std::map<std::string, const FieldDescriptor*> flags;
  const Descriptor& type = *v1::ServerConfig::descriptor();
  for (int i = 0; i < type.field_count(); ++i) {
    if (FlagField(type.field(i)->name()) != nullptr) flags.emplace(type.field(i)->name(), type.field(i));
  }
  std::string text =
      "Serves click-through-rate models over gRPC.\n\n"
      "  hilomoe-server --model_repository=<root> [--config=<file>] [flags]\n\nFlags:\n"
      "  --config: file with a hilomoe.v1.ServerConfig as textproto; flags win over it\n"
      "  --port_file: written once serving: {\"listen_port\": ..., \"metrics_port\": ..., ...}\n"
      "Flags that are fields of the config file, too:\n";
  for (const auto& [name, field] : flags) AppendHelp(*field, absl::StrCat("--", name), &text);
  std::string file_only;
  AppendFileHelp(type, "", &file_only);
  if (!file_only.empty()) absl::StrAppend(&text, "In the config file only:\n", file_only);
  return text;
}

absl::Status ApplyFlags(const FlagValues& values, ServerOptions* options) {
  for (const auto& [name, value] : values) {
    if (name == kConfigFlag) continue;
    if (name == kPortFileFlag) {
      options->port_file = value;
      continue;
    }
    if (std::string error; !SetField(FlagField(name), value, &options->config, &error)) {
      return absl::InvalidArgumentError(absl::StrCat("--", name, ": '", value, "' is not a valid value. ", error));
    }
  }
  return absl::OkStatus();
}

// Settings of the file and of flags have to fit together. What a flag has to change is left to be said later.
absl::Status ValidateFile(const ServerOptions& file, const FlagValues& flags) {
  HILOMOE_RETURN_IF_ERROR(ValidateRanges(file.config));
  ServerOptions all = file;
  if (!ApplyFlags(flags, &all).ok()) return absl::OkStatus();
  const absl::Status status = ValidateServerConfig(all.config);
  const std::string message(status.message());
  return flags.count(message.substr(0, message.find(':'))) > 0 ? absl::OkStatus() : status;
}

}  // namespace

absl::StatusOr<ServerOptions> ParseServerOptions(int argc, const char* const* argv) {
  ServerOptions options;
  bool help = false;
  HILOMOE_ASSIGN_OR_RETURN(const FlagValues flags, SplitArguments(argc, argv, &help));
  if (help) {
    options.help = HelpText();
    return options;
  }
  if (const auto path = flags.find(kConfigFlag); path != flags.end()) {
    HILOMOE_RETURN_IF_ERROR(ReadTextProto(path->second, &options.config, [&] { return ValidateFile(options, flags); }));
  }
  HILOMOE_RETURN_IF_ERROR(ApplyFlags(flags, &options));
  // The file was right, so what is wrong now came from a flag.
  if (const absl::Status status = ValidateServerConfig(options.config); !status.ok()) {
    return absl::Status(status.code(), absl::StrCat("--", status.message()));
  }
  if (options.config.model_repository().empty()) {
    return absl::InvalidArgumentError("model_repository is not set; give --model_repository or --config");
  }
  return options;
}

}  // namespace hilomoe
