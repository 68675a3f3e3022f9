// A server's config file, read and checked as hilomoe-server does.
#include "google/protobuf/stubs/logging.h"
#include "hilomoe/v1/server_config.pb.h"
#include "server/validate_config.h"
#include "tests/fuzz/fuzz_config.h"
#include "tests/fuzz/mutate_message.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const google::protobuf::LogSilencer silencer;
  hilomoe::v1::ServerConfig config;
  hilomoe::ReadFuzzedConfig(data, size, &config, [&] { return hilomoe::ValidateServerConfig(config); });
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  hilomoe::MutationRandom random(seed);
  hilomoe::v1::ServerConfig config;
  return hilomoe::MutateText(&config, data, size, max_size, &random);
}
