// model.hilomoe: all that serving a model needs in one file. The layout stands in proto/hilomoe/v1/model_file.proto.
#ifndef HILOMOE_MODEL_MODEL_FILE_H_
#define HILOMOE_MODEL_MODEL_FILE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "hilomoe/v1/model_file.pb.h"
#include "model/file_bytes.h"
#include "model/model_spec.h"
#include "model/stored_matrix.h"
#include "model/tensor_registry.h"
#include "model/vocabulary.h"

namespace hilomoe {

// 2: some tensor is stored as BFLOAT16 or SCALED_INT8, which programs that read version 1 alone take for damage. Files
// are written with the lowest version that has what they hold, and all versions up to the newest are read.
inline constexpr uint32_t kNewestModelFileVersion = 2;

struct ModelFileOptions {
  // Of tables and vocabularies; with kMap all other tensors are copied as well.
  FileMemory memory = FileMemory::kCopy;
  std::shared_ptr<SpareMemory> spare = nullptr;  // of the copy; see FileBytes::Open
  int threads = 1;                               // that load and verify, one tensor each at a time
  // Asked by these threads before every piece of a tensor; true ends Open with CANCELLED. May be empty.
  std::function<bool()> cancelled = nullptr;
};

// An opened model file: in memory, every checksum verified, every size and row checked against the config.
// Immutable; const access from any thread. What tensors() points to lives as long as the object.
class ModelFile {
 public:
  // DATA_LOSS with the place for a file that is truncated or changed, FAILED_PRECONDITION for a format version
  // that this program does not know.
  static absl::StatusOr<ModelFile> Open(const std::string& path, const ModelFileOptions& options = {});
  // Without checksums of tensors, to measure what they cost. Only benchmarks may call it: what it opens may be damaged.
  static absl::StatusOr<ModelFile> OpenUnverified(const std::string& path, const ModelFileOptions& options);

  ModelFile(ModelFile&&) = default;
  ModelFile& operator=(ModelFile&&) = default;

  const v1::ModelFileHeader& header() const { return header_; }
  const ModelSpec& spec() const { return spec_; }
  // Those of StorageGroup::kFloat32; null for all others.
  const ServingTensors<const float>& tensors() const { return tensors_; }
  // All that have at most two dimensions, as they are stored.
  const ServingTensors<const StoredMatrix>& matrices() const { return matrices_; }
  // Per table of the spec; those of QUANTILE numbers are never asked.
  const std::vector<Vocabulary>& vocabularies() const { return vocabularies_; }
  const std::vector<uint32_t>& table_rows() const { return table_rows_; }
  size_t bytes() const { return bytes_.size() + copied_.size(); }  // of memory
  // UNAVAILABLE when the file is mapped and was truncated or written to: scores computed since may be wrong. To be
  // asked before they are given to anybody; see FileBytes::CheckUnchanged.
  absl::Status CheckUnchanged() const { return bytes_.CheckUnchanged(); }

 private:
  ModelFile(FileBytes bytes, const ModelFileOptions& options) : options_(options), bytes_(std::move(bytes)) {}
  static absl::StatusOr<ModelFile> Open(const std::string& path, const ModelFileOptions& options, bool verify);
  absl::Status ParseHeader();
  // work(0) to work(count - 1), shared by the threads; the first error by index.
  absl::Status ForEach(int count, const std::function<absl::Status(int)>& work) const;
  // Reads it in pieces; while one is in a cache it is added to the checksum, and its buckets are checked.
  absl::Status LoadTensor(int index, bool verify);
  // Before the tensors are loaded: by the header alone.
  absl::Status BindVocabularies();
  absl::Status BindVocabulary(size_t table);
  absl::Status BindTensors();
  absl::StatusOr<const v1::ModelFileHeader::Tensor*> FindTensor(const std::string& name,
                                                                const std::vector<size_t>& shape) const;

  ModelFileOptions options_;
  FileBytes bytes_;
  AnonymousMemory copied_;  // with kMap the tensors that no rows are gathered from
  v1::ModelFileHeader header_;
  uint64_t header_end_ = 0;
  ModelSpec spec_;
  std::vector<StoredMatrix> stored_;  // per tensor of the registry
  ServingTensors<const float> tensors_;
  ServingTensors<const StoredMatrix> matrices_;
  std::vector<Vocabulary> vocabularies_;
  std::vector<uint32_t> table_rows_;
  std::vector<const Vocabulary*> vocabulary_in_;  // per tensor of the header; null: none
};

// What tensors are stored in, and products of them take place in.
struct StoragePrecision {
  Precision embeddings = Precision::kFloat32;
  Precision dense = Precision::kFloat32;
  Precision experts = Precision::kFloat32;

  Precision Of(StorageGroup group) const;
};

bool IsFloat32(const StoragePrecision& precision);  // all of it

// What a model file is written from. `header`: config, provenance, utilisation, golden rows; the rest is filled in.
// `tensors`: one per tensor of TensorRegistry::ForServing, in its order; rounded to the precision of its storage group
// while they are written. `vocabularies`: per table; empty ones for
// tables without a vocabulary.
struct ModelFileContents {
  v1::ModelFileHeader header;
  std::vector<uint32_t> table_rows;
  std::vector<absl::Span<const float>> tensors;
  StoragePrecision precision;
  std::vector<VocabularyIds> vocabularies;
};

// Writes atomically: the file appears under `path` when it is complete and synced, or not at all.
absl::Status WriteModelFile(const std::string& path, const ModelFileContents& contents);

}  // namespace hilomoe

#endif  // HILOMOE_MODEL_MODEL_FILE_H_
