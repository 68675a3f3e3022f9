#include "model/model_file.h"

#include <algorithm>
#include <atomic>
#include <climits>
#include <cmath>
#include <cstring>
#include <exception>
#include <new>
#include <numeric>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/checksum.h"
#include "model/encoded_batch.h"
#include "model/file_io.h"
#include "model/status_macros.h"

namespace hilomoe {
namespace {

using Tensor = v1::ModelFileHeader::Tensor;

constexpr char kMagic[8] = {'H', 'I', 'L', 'O', 'M', 'O', 'E', '\n'};
constexpr uint64_t kAlignment = 64;
// What is verified at once, while it is still in a cache where it was copied: at most a huge page, and ending where one
// does, since mapping a piece of one takes as long as mapping all of it.
constexpr size_t kPieceBytes = size_t{2} << 20;
// What is mapped at once: threads that do so often wait for each other in the kernel, for far more than they map.
// A load that is given up ends after as much was read, from disk when it is not in the page cache.
constexpr size_t kMappedAheadBytes = size_t{256} << 20;
// What is summed at once of buckets, and then looked at: so little that a core does that while it waits for the next
// ones from memory, which the checksum has asked for by then.
constexpr size_t kBucketPieceBytes = size_t{2} << 10;

struct Preamble {
  char magic[8];
  uint32_t version;
  uint32_t zero;
  uint64_t header_bytes;
  uint64_t header_xxh3;
};
static_assert(sizeof(Preamble) == 32);

uint64_t Align(uint64_t offset) { return (offset + kAlignment - 1) / kAlignment * kAlignment; }

// By Precision.
constexpr Tensor::DataType kDataTypes[] = {Tensor::FLOAT32, Tensor::BFLOAT16, Tensor::SCALED_INT8};

Tensor::DataType DataTypeOf(Precision precision) { return kDataTypes[static_cast<int>(precision)]; }

// Rows of a matrix with the extents `shape`; a vector is one.
size_t Columns(absl::Span<const size_t> shape) { return shape.empty() ? 1 : shape.back(); }

size_t Rows(absl::Span<const size_t> shape) {
  size_t rows = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
  return rows;
}

std::string Stored(Precision precision, absl::Span<const float> values, size_t columns) {
  const size_t row_bytes = StoredRowBytes(precision, columns);
  std::string bytes(values.size() / columns * row_bytes, '\0');
  for (size_t r = 0; r * columns < values.size(); ++r) {
    StoreRow(precision, values.subspan(r * columns, columns), reinterpret_cast<std::byte*>(&bytes[r * row_bytes]));
  }
  return bytes;
}

std::string VocabularyTensorName(const TableSpec& table) { return absl::StrCat("vocabulary.", table.feature); }

bool AllZero(const std::byte* begin, const std::byte* end) {
  return std::all_of(begin, end, [](std::byte b) { return b == std::byte{0}; });
}

template <typename T>
std::string_view AsBytes(absl::Span<const T> values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

Tensor MakeTensor(const std::string& name, Tensor::DataType type, absl::Span<const size_t> shape,
                  std::string_view bytes) {
  Tensor tensor;
  tensor.set_name(name);
  tensor.set_data_type(type);
  for (const size_t extent : shape) tensor.add_shape(extent);
  tensor.set_bytes(bytes.size());
  tensor.set_xxh3(ChecksumOf(bytes.data(), bytes.size()));
  return tensor;
}

// Gives every tensor its place. The header's own size depends on the offsets that stand in it, so the places are
// moved until nothing changes any more; sizes only grow, so this ends.
std::string PlaceTensors(v1::ModelFileHeader& header) {
  std::string serialized;
  for (uint64_t header_bytes = 0;;) {
    uint64_t offset = Align(sizeof(Preamble) + header_bytes);
    for (Tensor& tensor : *header.mutable_tensors()) {
      tensor.set_offset(offset);
      offset = Align(offset + tensor.bytes());
    }
    const Tensor& last = header.tensors(header.tensors_size() - 1);
    header.set_file_bytes(last.offset() + last.bytes());
    serialized = header.SerializeAsString();
    if (serialized.size() <= header_bytes) break;
    header_bytes = serialized.size();
  }
  return serialized;
}

}  // namespace

Precision StoragePrecision::Of(StorageGroup group) const {
  switch (group) {
    case StorageGroup::kEmbeddings:
      return embeddings;
    case StorageGroup::kDense:
      return dense;
    case StorageGroup::kExperts:
      return experts;
    case StorageGroup::kFloat32:
      break;
  }
  return Precision::kFloat32;
}

bool IsFloat32(const StoragePrecision& precision) {
  return precision.embeddings == Precision::kFloat32 && precision.dense == Precision::kFloat32 &&
         precision.experts == Precision::kFloat32;
}

absl::Status WriteModelFile(const std::string& path, const ModelFileContents& contents) {
  v1::ModelFileHeader header = contents.header;
  HILOMOE_ASSIGN_OR_RETURN(const ModelSpec spec, ModelSpec::Create(header.config()));
  const TensorRegistry registry = TensorRegistry::ForServing(spec, contents.table_rows);

  std::vector<VocabularyTable> tables(spec.tables().size());
  std::vector<std::string_view> bytes;
  header.clear_tensors();
  header.clear_vocabularies();
  for (size_t i = 0; i < spec.tables().size(); ++i) {
    const TableSpec& table = spec.tables()[i];
    auto* entry = header.add_vocabularies();
    entry->set_feature(table.feature);
    entry->set_rows(contents.table_rows[i]);
    if (!table.has_vocabulary()) continue;
    HILOMOE_ASSIGN_OR_RETURN(tables[i], BuildVocabularyTable(contents.vocabularies[i]));
    entry->set_seed(tables[i].seed);
    entry->set_max_probes(tables[i].max_probes);
    entry->set_ids(contents.vocabularies[i].size());
    bytes.push_back(AsBytes(absl::MakeConstSpan(tables[i].buckets)));
    *header.add_tensors() = MakeTensor(VocabularyTensorName(table), Tensor::UINT8, {bytes.back().size()}, bytes.back());
  }
  std::vector<std::string> rounded(registry.tensors().size());
  for (size_t i = 0; i < registry.tensors().size(); ++i) {
    const TensorSpec& tensor = registry.tensors()[i];
    const Precision precision = contents.precision.Of(tensor.storage);
    if (precision == Precision::kInt8 && Columns(tensor.shape) > kMaxInt8Columns) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor '", tensor.name, "' has more than ", kMaxInt8Columns, " columns: store it as bfloat16"));
    }
    if (precision == Precision::kFloat32) {
      bytes.push_back(AsBytes(contents.tensors[i]));
    } else {
      rounded[i] = Stored(precision, contents.tensors[i], Columns(tensor.shape));
      bytes.push_back(rounded[i]);
    }
    *header.add_tensors() = MakeTensor(tensor.name, DataTypeOf(precision), tensor.shape, bytes.back());
  }

  const std::string serialized = PlaceTensors(header);
  Preamble preamble{};
  std::memcpy(preamble.magic, kMagic, sizeof(kMagic));
  const bool float32 = std::all_of(header.tensors().begin(), header.tensors().end(), [](const Tensor& tensor) {
    return tensor.data_type() == Tensor::FLOAT32 || tensor.data_type() == Tensor::UINT8;
  });
  preamble.version = float32 ? 1 : 2;
  preamble.header_bytes = serialized.size();
  preamble.header_xxh3 = ChecksumOf(serialized.data(), serialized.size());

  HILOMOE_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  HILOMOE_RETURN_IF_ERROR(file.Append({reinterpret_cast<const char*>(&preamble), sizeof(preamble)}));
  HILOMOE_RETURN_IF_ERROR(file.Append(serialized));
  for (int i = 0; i < header.tensors_size(); ++i) {
    HILOMOE_RETURN_IF_ERROR(file.Append(std::string(header.tensors(i).offset() - file.size(), '\0')));
    HILOMOE_RETURN_IF_ERROR(file.Append(bytes[i]));
  }
  return file.Commit();
}

absl::StatusOr<ModelFile> ModelFile::Open(const std::string& path, const ModelFileOptions& options) {
  return Open(path, options, /*verify=*/true);
}

absl::StatusOr<ModelFile> ModelFile::OpenUnverified(const std::string& path, const ModelFileOptions& options) {
  return Open(path, options, /*verify=*/false);
}

absl::StatusOr<ModelFile> ModelFile::Open(const std::string& path, const ModelFileOptions& options, bool verify) {
  HILOMOE_ASSIGN_OR_RETURN(FileBytes bytes, FileBytes::Open(path, options.memory, options.spare));
  ModelFile file(std::move(bytes), options);
  absl::Status status = file.ParseHeader();
  if (status.ok()) status = file.BindVocabularies();
  if (status.ok()) {
    // The largest first, so that threads are done at nearly the same time.
    std::vector<int> order(static_cast<size_t>(file.header_.tensors_size()));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&file](int a, int b) {
      return file.header_.tensors(a).bytes() > file.header_.tensors(b).bytes();
    });
    status = file.ForEach(file.header_.tensors_size(),
                          [&](int i) { return file.LoadTensor(order[static_cast<size_t>(i)], verify); });
  }
  if (status.ok()) status = file.BindTensors();
  // What they know need not live as long as the file.
  file.options_.cancelled = nullptr;
  file.options_.spare = nullptr;
  // Of a file that changes under our hands anything may have seemed wrong with it.
  HILOMOE_RETURN_IF_ERROR(file.bytes_.FinishLoading());
  if (!status.ok()) return absl::Status(status.code(), absl::StrCat("'", path, "': ", status.message()));
  return file;
}

absl::Status ModelFile::ParseHeader() {
  Preamble preamble;
  if (bytes_.size() < sizeof(preamble)) return absl::DataLossError("too short to be a model file");
  HILOMOE_RETURN_IF_ERROR(bytes_.Load(0, sizeof(preamble)));
  std::memcpy(&preamble, bytes_.data(), sizeof(preamble));
  if (std::memcmp(preamble.magic, kMagic, sizeof(kMagic)) != 0) {
    return absl::DataLossError("not a model file: it does not begin with HILOMOE");
  }
  if (preamble.version > kNewestModelFileVersion) {
    return absl::FailedPreconditionError(absl::StrCat("format version ", preamble.version,
                                                      " is newer than this program understands, which is ",
                                                      kNewestModelFileVersion, "; update the program"));
  }
  if (preamble.version == 0) {
    return absl::FailedPreconditionError("format version 0 does not exist; convert the checkpoint again");
  }
  if (preamble.zero != 0) return absl::DataLossError("the preamble is damaged");
  if (preamble.header_bytes > bytes_.size() - sizeof(preamble)) {
    return absl::DataLossError("truncated within the header");
  }
  if (preamble.header_bytes > INT_MAX) return absl::DataLossError("the header is too long");
  HILOMOE_RETURN_IF_ERROR(bytes_.Load(sizeof(preamble), sizeof(preamble) + preamble.header_bytes));
  // Of mapped bytes, what is verified and what is parsed might not be the same.
  const std::string header(reinterpret_cast<const char*>(bytes_.data() + sizeof(preamble)), preamble.header_bytes);
  if (ChecksumOf(header.data(), header.size()) != preamble.header_xxh3) {
    return absl::DataLossError("the header's checksum is wrong");
  }
  if (!header_.ParseFromString(header)) return absl::DataLossError("the header cannot be parsed");
  if (header_.file_bytes() != bytes_.size()) {
    return absl::DataLossError(
        absl::StrCat("the file has ", bytes_.size(), " bytes, its header says ", header_.file_bytes()));
  }
  header_end_ = sizeof(preamble) + preamble.header_bytes;
  uint64_t end = header_end_;
  for (const Tensor& tensor : header_.tensors()) {
    const bool inside = tensor.offset() >= end && tensor.offset() <= bytes_.size() &&
                        tensor.bytes() <= bytes_.size() - tensor.offset() && tensor.offset() % kAlignment == 0;
    if (!inside) return absl::DataLossError(absl::StrCat("tensor '", tensor.name(), "' lies outside of its place"));
    end = tensor.offset() + tensor.bytes();
  }
  if (end != bytes_.size()) return absl::DataLossError("there are bytes behind the last tensor");
  HILOMOE_ASSIGN_OR_RETURN(spec_, ModelSpec::Create(header_.config()));
  return absl::OkStatus();
}

absl::Status ModelFile::LoadTensor(int index, bool verify) {
  const Tensor& tensor = header_.tensors(index);
  const std::byte* data = bytes_.data() + tensor.offset();
  const uint64_t gap =
      index == 0 ? header_end_ : header_.tensors(index - 1).offset() + header_.tensors(index - 1).bytes();
  HILOMOE_RETURN_IF_ERROR(bytes_.Load(gap, tensor.offset()));
  if (!AllZero(bytes_.data() + gap, data)) {
    return absl::DataLossError(absl::StrCat("the gap before tensor '", tensor.name(), "' is not zero"));
  }
  Checksum checksum;
  const Vocabulary* const vocabulary = vocabulary_in_[static_cast<size_t>(index)];
  absl::Status buckets;
  const size_t load_bytes = options_.memory == FileMemory::kMap ? kMappedAheadBytes : kPieceBytes;
  for (uint64_t done = 0, next, loaded = 0; done < tensor.bytes(); done = next) {
    if (options_.cancelled && options_.cancelled()) return absl::CancelledError("loading was given up");
    next = std::min<uint64_t>(done + kPieceBytes - (tensor.offset() + done) % kPieceBytes, tensor.bytes());
    if (next > loaded) {
      loaded = std::min<uint64_t>(next + load_bytes - kPieceBytes, tensor.bytes());
      HILOMOE_RETURN_IF_ERROR(bytes_.Load(tensor.offset() + done, tensor.offset() + loaded));
    }
    if (vocabulary == nullptr) {
      if (verify) checksum.Add(data + done, next - done);
      continue;
    }
    static_assert(kBucketPieceBytes % sizeof(VocabularyBucket) == 0);
    for (uint64_t begin = done, end; begin < next; begin = end) {
      end = std::min<uint64_t>(begin + kBucketPieceBytes, next);
      if (verify) checksum.Add(data + begin, end - begin);
      if (buckets.ok()) {
        buckets = vocabulary->CheckBuckets(begin / sizeof(VocabularyBucket), end / sizeof(VocabularyBucket));
      }
    }
  }
  if (verify && checksum.value() != tensor.xxh3()) {
    return absl::DataLossError(absl::StrCat("the checksum of tensor '", tensor.name(), "' is wrong"));
  }
  if (!buckets.ok()) {
    return absl::Status(buckets.code(), absl::StrCat("tensor '", tensor.name(), "': ", buckets.message()));
  }
  return absl::OkStatus();
}

absl::Status ModelFile::ForEach(int count, const std::function<absl::Status(int)>& work) const {
  std::vector<absl::Status> statuses(static_cast<size_t>(count));
  std::atomic<int> next{0};
  const auto run = [&] {
    for (int i = next++; i < count; i = next++) {
      absl::Status& status = statuses[static_cast<size_t>(i)];
      try {
        status = work(i);
      } catch (const std::bad_alloc&) {  // which would end the process where a thread began
        status = absl::ResourceExhaustedError("not enough memory");
      }
    }
  };
  const int helpers = std::min(options_.threads, count) - 1;  // this thread works as well
  std::vector<std::thread> threads;
  threads.reserve(static_cast<size_t>(std::max(helpers, 0)));
  try {
    for (int i = 0; i < helpers; ++i) threads.emplace_back(run);
  } catch (const std::exception&) {
    // No thread is left, or no memory for one: fewer of them do.
  }
  run();
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& status : statuses) HILOMOE_RETURN_IF_ERROR(status);
  return absl::OkStatus();
}

absl::StatusOr<const Tensor*> ModelFile::FindTensor(const std::string& name, const std::vector<size_t>& shape) const {
  for (const Tensor& tensor : header_.tensors()) {
    if (tensor.name() != name) continue;
    if (!std::equal(shape.begin(), shape.end(), tensor.shape().begin(), tensor.shape().end())) {
      return absl::DataLossError(absl::StrCat("tensor '", name, "' is [", absl::StrJoin(tensor.shape(), ", "),
                                              "], the config asks for [", absl::StrJoin(shape, ", "), "]"));
    }
    return &tensor;
  }
  return absl::DataLossError(absl::StrCat("tensor '", name, "' is not there"));
}

absl::Status ModelFile::BindVocabularies() {
  if (static_cast<size_t>(header_.vocabularies_size()) != spec_.tables().size()) {
    return absl::DataLossError("the header does not list one vocabulary a table");
  }
  vocabularies_.resize(spec_.tables().size());
  table_rows_.resize(spec_.tables().size());
  vocabulary_in_.resize(static_cast<size_t>(header_.tensors_size()), nullptr);
  for (size_t i = 0; i < vocabularies_.size(); ++i) HILOMOE_RETURN_IF_ERROR(BindVocabulary(i));
  return absl::OkStatus();
}

absl::Status ModelFile::BindVocabulary(size_t i) {
  const TableSpec& table = spec_.tables()[i];
  const auto& entry = header_.vocabularies(static_cast<int>(i));
  if (entry.feature() != table.feature) {
    return absl::DataLossError(
        absl::StrCat("vocabulary ", i, " is of feature '", entry.feature(), "', not of '", table.feature, "'"));
  }
  const uint64_t fixed = table.hash_buckets + table.buckets;
  if (entry.rows() < kReservedRows || entry.rows() > UINT32_MAX ||
      (!table.has_vocabulary() && entry.rows() != fixed + kReservedRows)) {
    return absl::DataLossError(absl::StrCat("table '", table.feature, "' cannot have ", entry.rows(), " rows"));
  }
  table_rows_[i] = static_cast<uint32_t>(entry.rows());
  if (!table.has_vocabulary()) {
    vocabularies_[i] = Vocabulary::Hashed(table.hash_buckets);
    return absl::OkStatus();
  }
  const std::string name = VocabularyTensorName(table);
  const auto stored = std::find_if(header_.tensors().begin(), header_.tensors().end(),
                                   [&](const Tensor& tensor) { return tensor.name() == name; });
  const size_t bytes = stored == header_.tensors().end() ? 0 : stored->bytes();
  HILOMOE_ASSIGN_OR_RETURN(const Tensor* tensor, FindTensor(name, {bytes}));
  if (tensor->data_type() != Tensor::UINT8 || bytes % sizeof(VocabularyBucket) != 0) {
    return absl::DataLossError(absl::StrCat("tensor '", name, "' is no array of buckets"));
  }
  const std::byte* data = bytes_.data() + tensor->offset();
  const auto buckets =
      absl::MakeConstSpan(reinterpret_cast<const VocabularyBucket*>(data), bytes / sizeof(VocabularyBucket));
  HILOMOE_ASSIGN_OR_RETURN(vocabularies_[i],
                           Vocabulary::FromUncheckedBuckets(buckets, entry.seed(), entry.max_probes(), table_rows_[i]));
  vocabulary_in_[static_cast<size_t>(stored - header_.tensors().begin())] = &vocabularies_[i];
  return absl::OkStatus();
}

absl::Status ModelFile::BindTensors() {
  const TensorRegistry registry = TensorRegistry::ForServing(spec_, table_rows_);
  std::vector<const Tensor*> found;
  size_t to_copy = 0;
  const auto is_copied = [&](size_t i) { return options_.memory == FileMemory::kMap && i >= registry.gathered(); };
  for (const TensorSpec& spec : registry.tensors()) {
    HILOMOE_ASSIGN_OR_RETURN(const Tensor* tensor, FindTensor(spec.name, spec.shape));
    if (is_copied(found.size())) to_copy += Align(tensor->bytes());
    found.push_back(tensor);
  }
  HILOMOE_ASSIGN_OR_RETURN(copied_, AnonymousMemory::Allocate(to_copy));
  std::byte* next_copy = copied_.data();

  std::vector<const float*> numbers;
  std::vector<const StoredMatrix*> matrices;
  stored_.reserve(registry.tensors().size());
  for (size_t i = 0; i < registry.tensors().size(); ++i) {
    const TensorSpec& spec = registry.tensors()[i];
    const Tensor* tensor = found[i];
    const auto* type = std::find(std::begin(kDataTypes), std::end(kDataTypes), tensor->data_type());
    const bool fixed = spec.storage == StorageGroup::kFloat32;
    const auto precision = static_cast<Precision>(type - std::begin(kDataTypes));
    if (type == std::end(kDataTypes) || (fixed && precision != Precision::kFloat32)) {
      return absl::DataLossError(
          absl::StrCat("tensor '", spec.name, "' cannot have data type ", Tensor::DataType_Name(tensor->data_type())));
    }
    if (precision == Precision::kInt8 && Columns(spec.shape) > kMaxInt8Columns) {
      return absl::DataLossError(absl::StrCat("tensor '", spec.name, "' has too many columns for int8"));
    }
    const std::byte* data = bytes_.data() + tensor->offset();
    if (is_copied(i)) {
      data = static_cast<const std::byte*>(std::memcpy(next_copy, data, tensor->bytes()));
      next_copy += Align(tensor->bytes());
    }
    const StoredMatrix& matrix =
        stored_.emplace_back(StoredMatrix{precision, data, Rows(spec.shape), Columns(spec.shape)});
    if (tensor->bytes() != matrix.rows * StoredRowBytes(precision, matrix.columns)) {
      return absl::DataLossError(absl::StrCat("tensor '", spec.name, "' has ", tensor->bytes(), " bytes"));
    }
    for (size_t r = 0; r < matrix.rows && precision == Precision::kInt8; ++r) {
      if (!(matrix.Scale(r) >= 0 && std::isfinite(matrix.Scale(r)))) {
        return absl::DataLossError(absl::StrCat("tensor '", spec.name, "', row ", r, ": the scale is no number"));
      }
    }
    matrices.push_back(&matrix);
    numbers.push_back(fixed ? reinterpret_cast<const float*>(matrix.data) : nullptr);
  }
  tensors_ = registry.BindServing(spec_, numbers);
  matrices_ = registry.BindServing(spec_, matrices);
  return absl::OkStatus();
}

}  // namespace hilomoe
