// A training config with its model config, read and checked as hilomoe-train does; of a sound one, the list of tensors
// and the count of operations.
#include <set>
#include <string>
#include <vector>

#include "google/protobuf/stubs/logging.h"
#include "hilomoe/v1/training_config.pb.h"
#include "model/encoded_batch.h"
#include "model/flops.h"
#include "model/model_spec.h"
#include "model/tensor_registry.h"
#include "tests/fuzz/fuzz_config.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/mutate_message.h"
#include "tools/train/training_config.h"

namespace hilomoe {
namespace {

void Run(const uint8_t* data, size_t size) {
  v1::TrainingConfig config;
  if (!ReadFuzzedConfig(data, size, &config, [&] { return CheckTrainingConfig(config); })) return;
  const absl::StatusOr<ModelSpec> spec = ModelSpec::Create(config.model());
  Require(spec.ok(), "a sound config has a model");
  std::vector<uint32_t> rows;
  for (const TableSpec& table : spec->tables()) {
    rows.push_back(kReservedRows + (table.has_vocabulary() ? 3 : table.hash_buckets + table.buckets));
  }
  for (const TensorRegistry& registry :
       {TensorRegistry::ForTraining(*spec, rows), TensorRegistry::ForServing(*spec, rows)}) {
    size_t offset = 0;
    std::set<std::string> names;
    for (const TensorSpec& tensor : registry.tensors()) {
      Require(tensor.offset == offset && tensor.size > 0, "tensors that do not follow one another");
      Require(names.insert(tensor.name).second, "two tensors of one name");
      offset += tensor.size;
    }
    Require(offset == registry.size(), "tensors that are not all");
  }
  (void)CountFlops(*spec);
  for (const v1::Stage& stage : config.stages()) (void)StageRates(stage, 0.5);
}

}  // namespace
}  // namespace hilomoe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const google::protobuf::LogSilencer silencer;
  hilomoe::Run(data, size);
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  hilomoe::MutationRandom random(seed);
  hilomoe::v1::TrainingConfig config;
  return hilomoe::MutateText(&config, data, size, max_size, &random);
}
