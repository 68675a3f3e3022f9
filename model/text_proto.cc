#include "model/text_proto.h"

#include <optional>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/types/optional.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/text_format.h"
#include "model/file_io.h"
#include "model/status_macros.h"

namespace hilomoe {
namespace {

using google::protobuf::TextFormat;

constexpr char kFieldPayload[] = "hilomoe/field";

class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, int column, const std::string& message) override {
    if (!text_.empty()) return;
    text_ = line < 0 ? message : absl::StrCat(line + 1, ":", column + 1, ": ", message);
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

// The line (from 1) of the deepest field of `path` that the text spells out; 0 when none does.
int LineOf(const std::string& path, const google::protobuf::Descriptor* type, const TextFormat::ParseInfoTree* tree) {
  int line = 0;
  for (absl::string_view part : absl::StrSplit(path, '.')) {
    if (type == nullptr || tree == nullptr) break;
    int index = -1;
    if (const size_t bracket = part.find('['); bracket != absl::string_view::npos) {
      if (!absl::SimpleAtoi(part.substr(bracket + 1, part.size() - bracket - 2), &index)) break;
      part = part.substr(0, bracket);
    }
    const auto* field = type->FindFieldByName(std::string(part));
    if (field == nullptr) break;
    const int location_index = field->is_repeated() && index < 0 ? 0 : index;
    if (const auto location = tree->GetLocation(field, location_index); location.line >= 0) {
      line = location.line + 1;
    }
    const bool is_message = field->message_type() != nullptr;
    tree = is_message ? tree->GetTreeForNested(field, location_index) : nullptr;
    type = field->message_type();
  }
  return line;
}

}  // namespace

absl::Status FieldError(std::string_view field, std::string_view message) {
  const absl::string_view name(field.data(), field.size());
  absl::Status status =
      absl::InvalidArgumentError(absl::StrCat(name, ": ", absl::string_view(message.data(), message.size())));
  status.SetPayload(kFieldPayload, absl::Cord(name));
  return status;
}

absl::Status InField(std::string_view prefix, const absl::Status& status) {
  const auto field = status.GetPayload(kFieldPayload);
  if (!field.has_value()) return status;
  const std::string name(*field);
  const std::string message(status.message());
  const std::string full = absl::StrCat(absl::string_view(prefix.data(), prefix.size()), ".", name);
  return FieldError(full, message.substr(name.size() + 2));
}

absl::Status ParseTextProto(std::string_view text, const std::string& name, google::protobuf::Message* message,
                            const std::function<absl::Status()>& validate) {
  FirstError errors;
  TextFormat::ParseInfoTree tree;
  TextFormat::Parser parser;
  parser.RecordErrorsTo(&errors);
  parser.WriteLocationsTo(&tree);
  if (!parser.ParseFromString(std::string(text), message)) {
    return absl::InvalidArgumentError(absl::StrCat(name, ":", errors.text()));
  }
  if (!validate) return absl::OkStatus();
  const absl::Status status = validate();
  const auto field = status.GetPayload(kFieldPayload);
  if (!field.has_value()) return status;
  const int line = LineOf(std::string(*field), message->GetDescriptor(), &tree);
  return absl::InvalidArgumentError(
      absl::StrCat(name, ":", line > 0 ? absl::StrCat(line, ":") : "", " ", status.message()));
}

absl::Status ReadTextProto(const std::string& path, google::protobuf::Message* message,
                           const std::function<absl::Status()>& validate) {
  HILOMOE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  return ParseTextProto(text, path, message, validate);
}

}  // namespace hilomoe
