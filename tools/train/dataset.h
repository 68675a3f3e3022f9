// Encoded rows in memory, and what has to be learned from the training log before anything can be encoded.
#ifndef HILOMOE_TOOLS_TRAIN_DATASET_H_
#define HILOMOE_TOOLS_TRAIN_DATASET_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "hilomoe/v1/model_file.pb.h"
#include "model/encoded_batch.h"
#include "model/model_spec.h"
#include "model/tensor_registry.h"
#include "model/vocabulary.h"
#include "runtime/request_encoder.h"
#include "tools/train/log_chunks.h"

namespace hilomoe {

// Flat rows of a log.
struct Dataset {
  EncodedBatch rows;
  std::vector<float> labels;
  std::vector<uint64_t> groups;

  size_t size() const { return labels.size(); }
};

// Rows `indices` of the dataset; outputs are overwritten, their memory is reused.
void SelectRows(const Dataset& dataset, absl::Span<const uint32_t> indices, EncodedBatch* batch,
                std::vector<float>* labels);
// Rows [begin, end).
void SelectRange(const Dataset& dataset, size_t begin, size_t end, EncodedBatch* batch, std::vector<float>* labels);

// Vocabularies and numeric statistics of a training log.
struct LogStatistics {
  std::vector<VocabularyIds> vocabularies;      // per table
  std::vector<std::vector<float>> standardise;  // per feature: {mean, 1 / deviation}, or empty
  std::vector<std::vector<float>> boundaries;   // per feature: quantiles, or empty
  v1::GoldenRequest samples;                    // some rows, spread over the log, without scores
  size_t rows = 0;
};
absl::StatusOr<LogStatistics> MeasureLog(const std::vector<std::string>& paths, const ModelSpec& spec,
                                         const LogChunksOptions& options);

// Makes an encoder from ids and the numeric statistics in a training arena. Movable, but not copyable; the arena's
// tensors must outlive it.
class TrainingEncoder {
 public:
  TrainingEncoder(const ModelSpec& spec, const std::vector<VocabularyIds>& ids,
                  const FeatureTensors<const float>& numeric);
  const RequestEncoder& encoder() const { return *encoder_; }

 private:
  std::vector<VocabularyTable> tables_;
  std::vector<Vocabulary> vocabularies_;
  std::unique_ptr<RequestEncoder> encoder_;
};

// Encodes a chunk as flat rows.
absl::Status EncodeChunk(const LogChunk& chunk, const RequestEncoder& encoder, EncodedBatch* batch);

// Reads and encodes whole logs; refuses an empty one. `name` stands in the progress bar.
absl::StatusOr<Dataset> ReadDataset(const std::string& name, const std::vector<std::string>& paths,
                                    const ModelSpec& spec, const LogChunksOptions& options,
                                    const RequestEncoder& encoder);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_DATASET_H_
