#include "tests/fuzz/fuzz_config.h"

#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/text_format.h"
#include "model/text_proto.h"
#include "tests/fuzz/fuzz_target.h"

namespace hilomoe {

bool ReadFuzzedConfig(const uint8_t* data, size_t size, google::protobuf::Message* config,
                      const std::function<absl::Status()>& validate) {
  const MemoryFile file(data, size);
  const absl::Status status = ReadTextProto(file.path(), config, validate);
  if (!status.ok()) {
    Require(absl::IsInvalidArgument(status), status.ToString());
    Require(absl::StartsWith(status.message(), absl::StrCat(file.path(), ":")), status.ToString());
    Require(status.message().size() < 2000 + size, "an error that is longer than the config");
    return false;
  }
  std::string text;
  google::protobuf::TextFormat::PrintToString(*config, &text);
  const absl::Status again = ParseTextProto(text, "printed", config, validate);
  Require(again.ok(), again.ToString());
  return true;
}

}  // namespace hilomoe
