// Textproto files, with every error naming file, line and field.
#ifndef HILOMOE_MODEL_TEXT_PROTO_H_
#define HILOMOE_MODEL_TEXT_PROTO_H_

#include <functional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "google/protobuf/message.h"

namespace hilomoe {

// Reads `path` into *message. Unknown fields and bad values are refused: "train.textproto:12:3: ...". `validate`
// (may be empty) then checks the meaning; a FieldError that it returns gets the line of the field it names.
absl::Status ReadTextProto(const std::string& path, google::protobuf::Message* message,
                           const std::function<absl::Status()>& validate = nullptr);

// The same for text that is already here; `name` stands in the errors.
absl::Status ParseTextProto(std::string_view text, const std::string& name, google::protobuf::Message* message,
                            const std::function<absl::Status()>& validate = nullptr);

// A wrong value in a config. `field` is a path from the root message: "model.features[3].embedding_width".
absl::Status FieldError(std::string_view field, std::string_view message);

// The same status with `prefix.` put before the field's path; other statuses pass.
absl::Status InField(std::string_view prefix, const absl::Status& status);

}  // namespace hilomoe

#endif  // HILOMOE_MODEL_TEXT_PROTO_H_
