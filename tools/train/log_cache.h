// From logs to encoded rows: each log is parsed once and kept in a row cache that later starts reuse.
//
// A directory `<name>-<hash>` for each log: the hash is of the features (but their embedding widths and pooling), which
// sequences stand side by side, the label, group and weight columns, the ids and numeric statistics of a warm start,
// the training logs' paths and the log's own. A cache is reused when the log's files have path, size and modification
// time (to the nanosecond) as they were and, other than the training log's, when its rows were encoded with the
// statistics now in use. Contents are not hashed: to read a log costs much of what parsing it costs, at every start;
// make and compiler caches trust the same three. What is stale, damaged or of another format version is rebuilt, in one
// line on stderr. Several processes may share a directory: each writes beside and renames, the last one wins, and all
// write the same.
#ifndef HILOMOE_TOOLS_TRAIN_LOG_CACHE_H_
#define HILOMOE_TOOLS_TRAIN_LOG_CACHE_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/model_spec.h"
#include "tools/train/log_chunks.h"
#include "tools/train/log_statistics.h"
#include "tools/train/row_cache.h"
#include "tools/train/warm_start.h"

namespace hilomoe {

class LogCache {
 public:
  struct Options {
    std::string directory;     // made when it is not there
    LogChunksOptions columns;  // `weight` is read from the training logs alone
    std::vector<std::string> training_logs;
    const WarmStart* warm_start = nullptr;  // grows its ids, and keeps its numeric statistics; needed in Open alone
  };
  // Statistics and rows of the training logs, from the cache or by two passes over them. `spec` must outlive it.
  // Errors: those of LogChunks; INVALID_ARGUMENT for logs without rows or that are no regular files; errno's code when
  // the cache cannot be written; ABORTED when a log changes while it is read.
  static absl::StatusOr<LogCache> Open(const ModelSpec& spec, Options options);

  const RowCache& training_rows() const { return *training_rows_; }
  LogStatistics& statistics() { return statistics_; }

  // The rows of other logs, encoded with the training logs' statistics, which must be there as they were.
  absl::StatusOr<RowCache> Rows(const std::string& name, const std::vector<std::string>& logs) const;

 private:
  LogCache(const ModelSpec& spec, Options options) : spec_(&spec), options_(std::move(options)) {}
  absl::Status OpenTraining();
  // The cache at `path`; none when it must be built.
  std::optional<RowCache> Reuse(const std::string& path, const RowColumns& columns,
                                const v1::RowCacheIndex& wanted) const;
  absl::StatusOr<v1::RowCacheIndex> Wanted(const std::vector<std::string>& logs, bool weights) const;
  std::string PathOf(const std::string& name, const v1::RowCacheIndex& wanted) const;
  absl::Status WriteRows(const std::string& name, const std::vector<std::string>& logs, const LogChunksOptions& columns,
                         RowCacheWriter* writer) const;

  const ModelSpec* spec_;
  Options options_;
  LogStatistics statistics_;
  uint64_t encoding_ = 0;
  uint64_t warm_start_ = 0;  // its fingerprint; 0: none
  std::optional<RowCache> training_rows_;
};

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_LOG_CACHE_H_
