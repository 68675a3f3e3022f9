// The batches of training, streamed from a row cache in bounded memory.
#ifndef HILOMOE_TOOLS_TRAIN_BATCH_SOURCE_H_
#define HILOMOE_TOOLS_TRAIN_BATCH_SOURCE_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "tools/train/row_block.h"
#include "tools/train/row_cache.h"

namespace hilomoe {

// The order of the rows of an epoch is a function of (seed, stage, epoch), the cache's blocks and buffer_bytes alone:
//
//   the blocks, in random order, are dealt out to windows: one of all blocks if they fit in buffer_bytes, else each as
//   long as half of that allows (at least one block); the rows of a window come in random order, one window after
//   another; batches are cut from that without regard to windows
//
// A thread of its own, which takes no signals, prepares the batch after the one asked for, and meanwhile reads the next
// window, a few blocks a batch. Calls come from one thread.
class BatchSource {
 public:
  struct Options {
    uint64_t seed = 0;
    size_t batch_rows = 0;    // >= 2
    size_t buffer_bytes = 0;  // for windows; see BatchSourceBytes for the rest
  };
  // `cache` must outlive it.
  BatchSource(const RowCache& cache, const Options& options);
  ~BatchSource();

  // Batches of an epoch. The last one may be shorter, but a single row left over makes none: it has no batch
  // statistics.
  uint64_t batches() const;
  // Batch `batch` < batches(), without groups, until the next call. Asking for batches in order is cheap, for any other
  // costs reading a window. Errors: those of RowCache::Read.
  absl::StatusOr<const LabelledRows*> Get(uint64_t stage, uint64_t epoch, uint64_t batch);

 private:
  class Worker;
  std::unique_ptr<Worker> worker_;
};

// The most memory that a BatchSource takes: windows, the places of their rows, batches.
size_t BatchSourceBytes(const RowCache& cache, const BatchSource::Options& options);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_BATCH_SOURCE_H_
