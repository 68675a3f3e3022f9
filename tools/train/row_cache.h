// A log's encoded rows on disk, so that a second start parses nothing and no start holds them all in memory.
//
// A directory that appears when it is complete:
//
//   index.binpb                8 bytes "HILOROWS", uint32 format version, uint32 zero, uint64 XXH3-64 of what follows:
//                              a RowCacheIndex
//   rows.bin                   blocks (row_block.h), one after another
//   vocabularies.safetensors   of a training log: the ids, as in a checkpoint
//
// Every block is checked against its XXH3-64 when the cache is opened and whenever it is read.
#ifndef HILOMOE_TOOLS_TRAIN_ROW_CACHE_H_
#define HILOMOE_TOOLS_TRAIN_ROW_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hilomoe/v1/row_cache.pb.h"
#include "model/file_io.h"
#include "tools/train/row_block.h"

namespace hilomoe {

// Bytes that move between disk and blocks, 8-byte aligned.
using BlockBytes = std::vector<uint64_t>;

// Reads blocks of an opened cache. Movable. Const methods: any thread. The files stay readable when another process
// replaces the directory.
class RowCache {
 public:
  // NOT_FOUND when nothing is there, DATA_LOSS for what is damaged or of another format version. Reads all rows once.
  static absl::StatusOr<RowCache> Open(const std::string& directory, const RowColumns& columns);
  RowCache(RowCache&& other) noexcept;
  RowCache& operator=(RowCache&& other) noexcept;
  ~RowCache();

  const v1::RowCacheIndex& index() const { return index_; }
  const RowColumns& columns() const { return columns_; }
  size_t rows() const { return rows_; }
  size_t bytes() const { return bytes_; }  // of all blocks
  size_t blocks() const { return static_cast<size_t>(index_.blocks_size()); }
  size_t block_rows(size_t i) const { return index_.blocks(static_cast<int>(i)).rows(); }
  size_t block_bytes(size_t i) const { return index_.blocks(static_cast<int>(i)).bytes(); }
  // The same for the same rows, wherever they were read from.
  uint64_t fingerprint() const;

  // Block i, parsed in place: block_bytes(i) bytes at `bytes`, which is 8-byte aligned.
  absl::StatusOr<RowBlock> Read(size_t i, std::byte* bytes) const;

 private:
  RowCache() = default;
  absl::Status Check();

  std::string path_;  // of the rows
  int fd_ = -1;
  RowColumns columns_;
  v1::RowCacheIndex index_;
  size_t rows_ = 0, bytes_ = 0;
};

// Reads all rows in their order, `max_rows` at a time. One thread.
class RowReader {
 public:
  RowReader(const RowCache& cache, size_t max_rows) : cache_(cache), max_rows_(max_rows) {}
  // False at the end. Rows of two blocks never come together.
  absl::StatusOr<bool> Next(LabelledRows* rows);

 private:
  const RowCache& cache_;
  const size_t max_rows_;
  BlockBytes bytes_;
  std::optional<RowBlock> block_;
  size_t next_block_ = 0, next_row_ = 0;
};

// Writes a cache. Nothing stands under its name before Commit; what stood there is then replaced.
class RowCacheWriter {
 public:
  static absl::StatusOr<RowCacheWriter> Create(const std::string& directory, const RowColumns& columns);

  // Where further files of the cache are written.
  const std::string& staging_path() const { return directory_.staging_path(); }
  absl::Status Append(const LabelledRows& rows);  // at most kBlockRows
  // `index` is completed with what was appended. Returns the cache written here, whatever another process may have put
  // under its name since.
  absl::StatusOr<RowCache> Commit(v1::RowCacheIndex index);
  size_t rows() const { return rows_; }

 private:
  RowCacheWriter(AtomicDirectory directory, AtomicFile file, RowColumns columns)
      : directory_(std::move(directory)), file_(std::move(file)), columns_(std::move(columns)) {}
  absl::Status Flush();

  AtomicDirectory directory_;
  AtomicFile file_;
  RowColumns columns_;
  LabelledRows pending_;
  v1::RowCacheIndex written_;
  size_t rows_ = 0;
};

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_ROW_CACHE_H_
