// A trained model on disk, as the converter and other frameworks read it: a directory of
//   config.textproto           TrainingConfig
//   weights.safetensors        the tensors of TensorRegistry::ForTraining under their names
//   vocabularies.safetensors   per table "<feature>.ids" I64 [n], or "<feature>.bytes" U8 and "<feature>.ends" I64 [n]
//                              (string i is bytes[ends[i-1], ends[i])); id i has row i + 2
//   metrics.json               metrics by name, expert utilisation
//   samples.binpb              some training rows (GoldenRequest without scores), from which golden rows are made
#ifndef HILOMOE_MODEL_CHECKPOINT_H_
#define HILOMOE_MODEL_CHECKPOINT_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hilomoe/v1/model_file.pb.h"
#include "hilomoe/v1/training_config.pb.h"
#include "model/model_spec.h"
#include "model/tensor_registry.h"
#include "model/vocabulary.h"

namespace hilomoe {

struct Checkpoint {
  v1::TrainingConfig config;
  std::vector<VocabularyIds> vocabularies;  // per table; empty ones for tables without a vocabulary
  std::vector<float> weights;               // the arena of TensorRegistry::ForTraining
  std::map<std::string, double> metrics;    // "valid.auc", ...
  std::vector<v1::ModelFileHeader::BlockUtilisation> utilisation;
  v1::GoldenRequest samples;

  // Rows of each table of `spec`.
  std::vector<uint32_t> TableRows(const ModelSpec& spec) const;
};

// Rows of the embedding tables that these vocabularies ask for.
std::vector<uint32_t> TableRows(const ModelSpec& spec, const std::vector<VocabularyIds>& vocabularies);

// Atomic: a directory that is complete, or none. One that stood there is replaced.
absl::Status WriteCheckpoint(const std::string& path, const Checkpoint& checkpoint);
absl::StatusOr<Checkpoint> ReadCheckpoint(const std::string& path);

// The vocabularies' part of it, which the cache of a training log shares.
absl::Status WriteVocabularies(const std::string& path, const ModelSpec& spec,
                               const std::vector<VocabularyIds>& vocabularies);
absl::StatusOr<std::vector<VocabularyIds>> ReadVocabularies(const std::string& path, const ModelSpec& spec);

}  // namespace hilomoe

#endif  // HILOMOE_MODEL_CHECKPOINT_H_
