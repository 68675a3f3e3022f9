// Encoding the rows of a log for training and for scoring without a server.
#ifndef HILOMOE_TOOLS_TRAIN_LOG_ENCODER_H_
#define HILOMOE_TOOLS_TRAIN_LOG_ENCODER_H_

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/encoded_batch.h"
#include "model/model_spec.h"
#include "model/tensor_registry.h"
#include "model/vocabulary.h"
#include "runtime/request_encoder.h"
#include "tools/train/log_chunks.h"

namespace hilomoe {

// Movable, but not copyable. `spec` and the tensors of `numeric` (standardise and boundaries are read) must outlive it.
class LogEncoder {
 public:
  // Errors: those of BuildVocabularyTable.
  static absl::StatusOr<LogEncoder> Create(const ModelSpec& spec, const std::vector<VocabularyIds>& ids,
                                           const FeatureTensors<const float>& numeric);

  // A chunk as flat rows; columns that its log lacks are left to the features' defaults. Errors: those of
  // RequestEncoder, with the chunk's place.
  absl::Status Encode(const LogChunk& chunk, EncodedBatch* batch) const;

 private:
  LogEncoder() = default;

  std::vector<VocabularyTable> tables_;
  std::vector<Vocabulary> vocabularies_;
  std::unique_ptr<RequestEncoder> encoder_;
};

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_LOG_ENCODER_H_
