// What has to be learned from the training log before anything can be encoded.
#ifndef HILOMOE_TOOLS_TRAIN_LOG_STATISTICS_H_
#define HILOMOE_TOOLS_TRAIN_LOG_STATISTICS_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "hilomoe/v1/model_file.pb.h"
#include "model/model_spec.h"
#include "model/tensor_registry.h"
#include "model/vocabulary.h"
#include "tools/train/log_chunks.h"

namespace hilomoe {

// Vocabularies and numeric statistics of a training log.
struct LogStatistics {
  std::vector<VocabularyIds> vocabularies;      // per table
  std::vector<std::vector<float>> standardise;  // per feature: {mean, 1 / deviation}, or empty
  std::vector<std::vector<float>> boundaries;   // per feature: quantiles, or empty
  v1::GoldenRequest samples;                    // some rows, spread over the log, without scores
  size_t rows = 0;
};

// One pass over the logs, in memory that grows with the number of different ids alone. Refuses logs without a row.
absl::StatusOr<LogStatistics> MeasureLog(const std::vector<std::string>& paths, const ModelSpec& spec,
                                         const LogChunksOptions& options);

// The numeric statistics as an encoder reads them; pointers into `statistics`, null for all other tensors.
FeatureTensors<const float> NumericTensors(const LogStatistics& statistics);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_LOG_STATISTICS_H_
