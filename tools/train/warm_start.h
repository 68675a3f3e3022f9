// Going on from a trained model on a new day's log: its weights, its ids in their places, new ids behind them.
#ifndef HILOMOE_TOOLS_TRAIN_WARM_START_H_
#define HILOMOE_TOOLS_TRAIN_WARM_START_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/checkpoint.h"
#include "model/model_spec.h"
#include "model/tensor_registry.h"
#include "tools/train/log_statistics.h"

namespace hilomoe {

class WarmStart {
 public:
  // Errors as ReadCheckpoint.
  static absl::StatusOr<WarmStart> Read(const std::string& checkpoint);

  // What a log's encoding depends on: ids and numeric statistics.
  uint64_t fingerprint() const { return fingerprint_; }

  // Makes the statistics of a new log those of the model to be trained: per table that goes on (see CopyWeights) the
  // old ids in their order, then the log's other ones (up to the vocabulary's max_size in all); numbers are transformed
  // as they were.
  void Grow(const ModelSpec& spec, LogStatistics* statistics) const;

  // Copies what both models have under one name: tables row by row (rows of new ids stay) where rows mean the same in
  // both, being of a vocabulary of one id_type or of as many hash or quantile buckets; other tensors of the same shape,
  // those of the first blocks only where every part of x is what it was.
  // `weights`: an arena of `registry` (ForTraining, with the grown tables), initialised.
  struct Copied {
    size_t tensors = 0;
    std::vector<std::string> fresh;  // names of tensors that keep their initialisation
    bool routing = false;            // trained experts came along: calibrated already
  };
  Copied CopyWeights(const ModelSpec& spec, const TensorRegistry& registry, float* weights) const;

 private:
  WarmStart(Checkpoint checkpoint, ModelSpec spec);
  // The old table whose rows table i of `spec` goes on with; -1 when it has none.
  int OldTable(const ModelSpec& spec, size_t i) const;
  // Whether each part of x stands where it stood.
  bool SameInput(const ModelSpec& spec) const;
  // Whether gathered tensor i of `registry`, of `spec`, goes on with the old one of its name.
  bool GoesOn(const ModelSpec& spec, const TensorRegistry& registry, size_t i) const;

  Checkpoint checkpoint_;
  ModelSpec spec_;
  TensorRegistry registry_;
  uint64_t fingerprint_ = 0;
};

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_WARM_START_H_
