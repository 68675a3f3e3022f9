// Encoded rows with their labels, and blocks of them as bytes: the unit in which a row cache is written and read.
//
// A block of n rows, little-endian, every part padded with zeros to a multiple of 8 bytes:
//
//   per feature   one table row a row:  rows uint32 [n]
//                 pooled:               offsets uint32 [n + 1], rows uint32 [offsets[n]]
//                 number:               values float [n], with missing_indicator missing uint8 [n]
//   labels uint8 [n], weights float [n] if there are any, groups uint64 [n] if there are any
#ifndef HILOMOE_TOOLS_TRAIN_ROW_BLOCK_H_
#define HILOMOE_TOOLS_TRAIN_ROW_BLOCK_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/encoded_batch.h"
#include "model/model_spec.h"

namespace hilomoe {

// Flat rows of a log.
struct LabelledRows {
  EncodedBatch encoded;
  std::vector<float> labels;     // 0 or 1
  std::vector<float> weights;    // of the loss; empty: all 1
  std::vector<uint64_t> groups;  // empty: none

  size_t size() const { return labels.size(); }
  // Keeps the memory.
  void Clear();
};

// Appends rows in the memory of `all`; weights and groups are the caller's.
void AppendRows(const EncodedBatch& batch, EncodedBatch* all);

// Which parts a block has.
struct RowColumns {
  enum class Kind : uint8_t { kRow, kPooled, kNumber, kNumberOrMissing };
  std::vector<Kind> features;
  bool weights = false;
  bool groups = false;

  static RowColumns Of(const ModelSpec& spec, bool weights, bool groups);
};

// At most so many rows and, but for a single longer row, about so many bytes stand in a block.
inline constexpr size_t kBlockRows = size_t{1} << 14;
inline constexpr size_t kBlockBytes = size_t{8} << 20;

// The bytes of a block; `rows` has the given columns.
std::string SerializeRows(const RowColumns& columns, const LabelledRows& rows);

// A block read in place; the bytes must outlive it.
struct RowBlock {
  struct Feature {
    const uint32_t* rows = nullptr;
    const uint32_t* offsets = nullptr;
    const float* values = nullptr;
    const uint8_t* missing = nullptr;
  };
  size_t size = 0;
  std::vector<Feature> features;
  const uint8_t* labels = nullptr;
  const float* weights = nullptr;
  const uint64_t* groups = nullptr;

  // DATA_LOSS unless the parts fill `bytes` (8-byte aligned) exactly and the offsets ascend.
  static absl::StatusOr<RowBlock> Parse(const RowColumns& columns, size_t rows, absl::Span<const std::byte> bytes);
};

// A row among several blocks: block << 14 | row within it.
using RowPlace = uint32_t;
inline constexpr int kRowPlaceBits = 14;

// Appends the rows at `places` to `out`, but for their groups.
void GatherRows(absl::Span<const RowBlock> blocks, absl::Span<const RowPlace> places, LabelledRows* out);
// Overwrites `out` with rows [begin, end) of one block, groups included.
void CopyRows(const RowBlock& block, size_t begin, size_t end, LabelledRows* out);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_ROW_BLOCK_H_
