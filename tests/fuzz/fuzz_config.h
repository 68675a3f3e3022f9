// What holds for every config that is read from a textproto.
#ifndef HILOMOE_TESTS_FUZZ_FUZZ_CONFIG_H_
#define HILOMOE_TESTS_FUZZ_FUZZ_CONFIG_H_

#include <cstddef>
#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "google/protobuf/message.h"

namespace hilomoe {

// Reads the input as a file. Requires that an error is INVALID_ARGUMENT and begins with the file's name, and that a
// config which is sound still is when it has been printed and read again. True when it is sound.
bool ReadFuzzedConfig(const uint8_t* data, size_t size, google::protobuf::Message* config,
                      const std::function<absl::Status()>& validate);

}  // namespace hilomoe

#endif  // HILOMOE_TESTS_FUZZ_FUZZ_CONFIG_H_
