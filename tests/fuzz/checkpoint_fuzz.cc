// A checkpoint, read as resuming, converting and evaluating read it.
//
// An input is the directory's files one after another, each behind its length as four bytes. Held besides: of ids that
// are read, a look-up table can be built; the weights are those of the config.
#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "google/protobuf/stubs/logging.h"
#include "model/checkpoint.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/mutate_message.h"

namespace hilomoe {
namespace {

enum File { kConfig, kWeights, kVocabularies, kMetrics, kSamples, kFiles };
constexpr const char* kNames[] = {"config.textproto", "weights.safetensors", "vocabularies.safetensors", "metrics.json",
                                  "samples.binpb"};

// What is missing is empty.
std::vector<std::string> Split(const uint8_t* data, size_t size) {
  std::vector<std::string> files;
  while (files.size() < kFiles) {
    uint32_t length = 0;
    if (size < sizeof(length)) {
      files.emplace_back();
      continue;
    }
    std::memcpy(&length, data, sizeof(length));
    data += sizeof(length);
    size -= sizeof(length);
    const size_t bytes = std::min<size_t>(length, size);
    files.emplace_back(reinterpret_cast<const char*>(data), bytes);
    data += bytes;
    size -= bytes;
  }
  return files;
}

std::string Join(const std::vector<std::string>& files) {
  std::string bytes;
  for (const std::string& file : files) {
    const auto length = static_cast<uint32_t>(file.size());
    bytes.append(reinterpret_cast<const char*>(&length), sizeof(length));
    bytes += file;
  }
  return bytes;
}

void Run(const uint8_t* data, size_t size) {
  const std::vector<std::string> files = Split(data, size);
  for (int i = 0; i < kFiles; ++i) {
    std::ofstream file(ScratchDirectory() + "/" + kNames[i], std::ios::binary);
    file << files[i];
  }
  const absl::StatusOr<Checkpoint> checkpoint = ReadCheckpoint(ScratchDirectory());
  if (!checkpoint.ok()) {
    const absl::Status& status = checkpoint.status();
    Require(absl::IsInvalidArgument(status) || absl::IsDataLoss(status) || absl::IsNotFound(status), status.ToString());
    return;
  }
  const absl::StatusOr<ModelSpec> spec = ModelSpec::Create(checkpoint->config.model());
  Require(spec.ok(), "a checkpoint without a model");
  const TensorRegistry registry = TensorRegistry::ForTraining(*spec, checkpoint->TableRows(*spec));
  Require(checkpoint->weights.size() == registry.size(), "weights that are not the config's");
  for (const VocabularyIds& ids : checkpoint->vocabularies) {
    Require(BuildVocabularyTable(ids).ok(), "ids of which no table can be built");
  }
}

// The header's text, or the bytes behind it; the length before it is written anew.
void MutateSafetensors(std::string* file, MutationRandom* random) {
  uint64_t length = 0;
  if (OneIn(6, random) || file->size() < sizeof(length)) return MutateBytes(file, 16);
  std::memcpy(&length, file->data(), sizeof(length));
  length = std::min<uint64_t>(length, file->size() - sizeof(length));
  std::string header = file->substr(sizeof(length), length), values = file->substr(sizeof(length) + length);
  MutateBytes(OneIn(4, random) ? &values : &header, 16);
  length = header.size();
  *file = std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + header + values;
}

size_t Mutate(uint8_t* data, size_t size, size_t max_size, MutationRandom* random) {
  std::vector<std::string> files = Split(data, size);
  const size_t chosen = Below(kFiles, random);
  std::string& file = files[chosen];
  const size_t used = file.size();
  if (chosen == kWeights || chosen == kVocabularies) {
    MutateSafetensors(&file, random);
  } else if (chosen == kMetrics) {
    MutateBytes(&file, 16);
  } else {
    v1::TrainingConfig config;
    v1::GoldenRequest samples;
    file.resize(used + 512);
    auto* bytes = reinterpret_cast<uint8_t*>(file.data());
    file.resize(chosen == kConfig ? MutateText(&config, bytes, used, file.size(), random)
                                  : MutateBinary(&samples, bytes, used, file.size(), random));
  }
  return Replace(Join(files), data, size, max_size);
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
  return hilomoe::Mutate(data, size, max_size, &random);
}
