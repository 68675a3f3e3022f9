// What a server's config may say.
#ifndef HILOMOE_SERVER_VALIDATE_CONFIG_H_
#define HILOMOE_SERVER_VALIDATE_CONFIG_H_

#include "absl/status/status.h"
#include "hilomoe/v1/server_config.pb.h"

namespace hilomoe {

// The values that stand in the config, each for itself (its setting's `least` and `most`) and against the others;
// errors are FieldErrors. A config without model_repository passes: flags may name it.
absl::Status ValidateServerConfig(const v1::ServerConfig& config);

// The first part alone, for any message whose fields have settings.
absl::Status ValidateRanges(const google::protobuf::Message& message);

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_VALIDATE_CONFIG_H_
