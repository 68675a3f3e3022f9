// How much memory a training run will take, told before it starts.
#ifndef HILOMOE_TOOLS_TRAIN_MEMORY_PLAN_H_
#define HILOMOE_TOOLS_TRAIN_MEMORY_PLAN_H_

#include <cstddef>
#include <string>
#include <vector>

#include "model/model_spec.h"
#include "model/tensor_registry.h"
#include "model/vocabulary.h"
#include "tools/train/batch_source.h"
#include "tools/train/row_cache.h"

namespace hilomoe {

// Bytes resident at the peak of training, once the logs stand in their caches. Building those takes what the
// vocabularies' counts need, which nobody knows before; building the test log's cache at the end needs the
// vocabularies' tables once more, which is counted.
struct MemoryPlan {
  size_t program = 0;       // code, libraries, the threads' scratch memory
  size_t weights = 0;       // now and best
  size_t optimizer = 0;     // m and v
  size_t gradients = 0;     // dense, and of the table rows that a batch touches
  size_t activations = 0;   // of a training batch or of one of evaluation
  size_t rows = 0;          // windows and batches of the training log, a block of the validation log
  size_t evaluation = 0;    // scores, labels, groups and what the metrics sort
  size_t vocabularies = 0;  // ids, and what writing or looking them up takes

  size_t total() const {
    return program + weights + optimizer + gradients + activations + rows + evaluation + vocabularies;
  }
  // "612 MiB: weights 120, optimizer 120, ..."
  std::string Text() const;
};

MemoryPlan PredictMemory(const ModelSpec& spec, const TensorRegistry& registry, size_t optimizer_floats,
                         const std::vector<VocabularyIds>& vocabularies, const RowCache& train, const RowCache& valid,
                         const BatchSource::Options& batches, int threads);

// The most memory that was ever resident in this process (VmHWM); 0 where the system does not tell.
size_t PeakResidentBytes();

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_MEMORY_PLAN_H_
