// A model file is read back as it was written; one that is damaged in any way is not opened.
#include "model/model_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/stubs/logging.h"
#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"
#include "model/encoded_batch.h"
#include "tests/model/random_model.h"
#include "tests/model/test_files.h"

#define XXH_INLINE_ALL
#include "xxhash.h"

namespace hilomoe {
namespace {

using google::protobuf::util::MessageDifferencer;
using testing::HasSubstr;
using testing::StartsWith;

constexpr size_t kPreambleBytes = 32;

// The contents that a test writes; spans point into `values`.
struct Contents {
  // int64_ids: of every table of INT64 ids, at least 3.
  explicit Contents(const std::string& config, uint32_t int64_ids = 3) {
    *file.header.mutable_config() = ModelConfigFromText(config);
    const ModelSpec spec = *ModelSpec::Create(file.header.config());
    file.table_rows = TableRowsFor(spec, int64_ids);
    for (const TableSpec& table : spec.tables()) {
      VocabularyIds& ids = file.vocabularies.emplace_back();
      if (!table.has_vocabulary()) continue;
      if (table.id_type == v1::Feature::INT64) {
        ids.int64s = {7, INT64_MIN, -1};
        for (int64_t id = 100; ids.int64s.size() < int64_ids; ++id) ids.int64s.push_back(id);
      } else {
        ids.strings = {"x", "yy", std::string("\0", 1)};
      }
    }
    std::mt19937 engine(9);
    const TensorRegistry registry = TensorRegistry::ForServing(spec, file.table_rows);
    for (const TensorSpec& tensor : registry.tensors()) {
      std::vector<float>& numbers = values.emplace_back(tensor.size);
      for (float& number : numbers) number = static_cast<float>(engine()) * 0x1p-32F - 0.5F;
    }
    for (const std::vector<float>& numbers : values) file.tensors.emplace_back(numbers);
    file.header.mutable_provenance()->set_label("click");
    (*file.header.mutable_provenance()->mutable_metrics())["valid.auc"] = 0.75;
    v1::GoldenRequest* golden = file.header.add_golden();
    golden->set_num_candidates(1);
    golden->add_scores(0.5);
    file.header.set_golden_tolerance(1e-6);
  }

  ModelFileContents file;
  std::vector<std::vector<float>> values;
};

constexpr char kTiny[] = R"(
  features { id: 1 name: "a" kind: CATEGORICAL scope: CONTEXT id_type: INT64 embedding_width: 1 }
  network { blocks { width: 1 experts { layers: 1 experts_per_layer: 2 } } })";
constexpr char kRich[] = R"(network {
  blocks { width: 5 experts { layers: 2 experts_per_layer: 3 } } blocks { width: 4 } })";

class ModelFileTest : public testing::Test {
 protected:
  std::string Write(const Contents& contents) {
    const absl::Status status = WriteModelFile(path_, contents.file);
    EXPECT_TRUE(status.ok()) << status;
    return ReadBytes(path_);
  }
  // Copied and mapped give the same.
  absl::Status Open() {
    const absl::Status status = ModelFile::Open(path_).status();
    EXPECT_EQ(ModelFile::Open(path_, {.memory = FileMemory::kMap, .threads = 2}).status(), status);
    return status;
  }

  const TestDirectory directory_;
  const std::string path_ = directory_ / "model.hilomoe";
};

TEST_F(ModelFileTest, RoundTrip) {
  const Contents contents(absl::StrCat(kAllFeatures, kRich));
  Write(contents);
  const auto file = ModelFile::Open(path_);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->bytes(), std::filesystem::file_size(path_));
  EXPECT_TRUE(MessageDifferencer::Equals(file->header().config(), contents.file.header.config()));
  EXPECT_TRUE(MessageDifferencer::Equals(file->header().provenance(), contents.file.header.provenance()));
  EXPECT_TRUE(MessageDifferencer::Equals(file->header().golden(0), contents.file.header.golden(0)));
  EXPECT_EQ(file->header().golden_tolerance(), 1e-6);
  EXPECT_EQ(file->table_rows(), contents.file.table_rows);
  EXPECT_EQ(file->spec().input_width(), 21);

  const TensorRegistry registry = TensorRegistry::ForServing(file->spec(), file->table_rows());
  std::vector<const float*> data;
  for (const std::vector<float>& numbers : contents.values) data.push_back(numbers.data());
  const auto expected = registry.BindServing(file->spec(), data);
  const auto& tensors = file->tensors();
  const auto equal = [](const float* a, const float* b, size_t n) { return std::memcmp(a, b, n * sizeof(float)) == 0; };
  const auto& matrices = file->matrices();
  const auto stored = [&](const StoredMatrix* matrix, const float* b, size_t rows, size_t columns) {
    return matrix->precision == Precision::kFloat32 && matrix->rows == rows && matrix->columns == columns &&
           std::memcmp(matrix->data, b, rows * columns * sizeof(float)) == 0;
  };
  EXPECT_TRUE(stored(matrices.features.tables[1], expected.features.tables[1], 5, 4));
  EXPECT_TRUE(equal(tensors.features.boundaries[6], expected.features.boundaries[6], 3));
  EXPECT_TRUE(equal(tensors.features.standardise[4], expected.features.standardise[4], 2));
  EXPECT_TRUE(stored(matrices.blocks[0].stacked_weight, expected.blocks[0].stacked_weight, 11, 21));
  EXPECT_EQ(tensors.blocks[0].stacked_weight, nullptr) << "of a precision that varies";
  EXPECT_TRUE(equal(tensors.blocks[0].gram, expected.blocks[0].gram, 36));
  EXPECT_TRUE(equal(tensors.blocks[1].bias, expected.blocks[1].bias, 4));
  EXPECT_EQ(tensors.blocks[1].u, nullptr);
  EXPECT_TRUE(equal(tensors.head_bias, expected.head_bias, 1));
  for (const StoredMatrix* matrix : {matrices.features.tables[0], matrices.blocks[0].u, matrices.head_weight}) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(matrix->data) % 64, 0);
  }

  EXPECT_EQ(file->vocabularies()[0].Find("yy"), 3);
  EXPECT_EQ(file->vocabularies()[0].Find("y"), kOutOfVocabularyRow);
  EXPECT_EQ(file->vocabularies()[1].Find(int64_t{-1}), 4);
  EXPECT_EQ(file->vocabularies()[4].Find(int64_t{-1}), Vocabulary::Hashed(6).Find(int64_t{-1}));
}

TEST_F(ModelFileTest, StoresMatricesInThePrecisionOfTheirGroup) {
  Contents contents(absl::StrCat(kAllFeatures, kRich));
  Write(contents);
  const size_t float32_bytes = std::filesystem::file_size(path_);
  contents.file.precision = {Precision::kInt8, Precision::kBfloat16, Precision::kFloat32};
  Write(contents);
  EXPECT_LT(std::filesystem::file_size(path_), float32_bytes);
  const auto file = ModelFile::Open(path_);
  ASSERT_TRUE(file.ok()) << file.status();
  const TensorRegistry registry = TensorRegistry::ForServing(file->spec(), file->table_rows());
  std::vector<const float*> data;
  for (const std::vector<float>& numbers : contents.values) data.push_back(numbers.data());
  const auto expected = registry.BindServing(file->spec(), data);
  const auto check = [](const StoredMatrix& matrix, Precision precision, const float* numbers) {
    ASSERT_EQ(matrix.precision, precision);
    std::vector<std::byte> row(StoredRowBytes(precision, matrix.columns));
    for (size_t r = 0; r < matrix.rows; ++r) {
      StoreRow(precision, {numbers + r * matrix.columns, matrix.columns}, row.data());
      EXPECT_EQ(std::memcmp(matrix.row(r), row.data(), row.size()), 0) << r;
    }
  };
  const auto& matrices = file->matrices();
  check(*matrices.features.tables[1], Precision::kInt8, expected.features.tables[1]);
  check(*matrices.blocks[0].stacked_weight, Precision::kBfloat16, expected.blocks[0].stacked_weight);
  check(*matrices.blocks[0].u, Precision::kFloat32, expected.blocks[0].u);
  check(*matrices.head_weight, Precision::kFloat32, expected.head_weight);
}

TEST_F(ModelFileTest, OutlivesAMoveAndTheFile) {
  Write(Contents(kTiny));
  auto file = ModelFile::Open(path_);
  ASSERT_TRUE(file.ok());
  const float bias = *file->tensors().head_bias;
  const ModelFile moved = *std::move(file);
  WriteBytes(path_, "gone");
  EXPECT_EQ(*moved.tensors().head_bias, bias);
  EXPECT_EQ(moved.vocabularies()[0].Find(int64_t{7}), 2);
}

TEST_F(ModelFileTest, MappedIsTheSameAsCopied) {
  Contents contents(absl::StrCat(kAllFeatures, kRich));
  contents.file.precision = {Precision::kInt8, Precision::kBfloat16, Precision::kFloat32};
  Write(contents);
  const auto copied = ModelFile::Open(path_);
  ASSERT_TRUE(copied.ok()) << copied.status();
  for (const int threads : {1, 3, 1000}) {
    auto opened = ModelFile::Open(path_, {.memory = FileMemory::kMap, .threads = threads});
    ASSERT_TRUE(opened.ok()) << opened.status();
    const ModelFile mapped = *std::move(opened);
    EXPECT_TRUE(mapped.CheckUnchanged().ok());
    const auto same = [](const StoredMatrix* a, const StoredMatrix* b) {
      return a->precision == b->precision && a->rows == b->rows && a->columns == b->columns &&
             std::memcmp(a->data, b->data, a->rows * StoredRowBytes(a->precision, a->columns)) == 0;
    };
    const auto &m = mapped.matrices(), &c = copied->matrices();
    for (size_t i = 0; i < c.features.tables.size(); ++i) {
      EXPECT_TRUE(same(m.features.tables[i], c.features.tables[i])) << i;
    }
    EXPECT_TRUE(same(m.blocks[0].stacked_weight, c.blocks[0].stacked_weight));
    EXPECT_TRUE(same(m.blocks[1].bias, c.blocks[1].bias));
    EXPECT_TRUE(same(m.head_bias, c.head_bias));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(m.head_weight->data) % 64, 0);
    EXPECT_EQ(*mapped.tensors().head_bias, *copied->tensors().head_bias);
    EXPECT_EQ(mapped.vocabularies()[0].Find("yy"), 3);
  }
}

TEST_F(ModelFileTest, OfAMappedFileThatIsCutTheDenseTensorsAndBoundsStay) {
  Write(Contents(kTiny));
  const auto file = ModelFile::Open(path_, {.memory = FileMemory::kMap});
  ASSERT_TRUE(file.ok());
  const float bias = *file->tensors().head_bias;
  std::filesystem::resize_file(path_, 0);
  EXPECT_EQ(file->vocabularies()[0].Find(int64_t{7}), kOutOfVocabularyRow);
  float cell = 1;
  std::memcpy(&cell, file->matrices().features.tables[0]->row(2), sizeof(cell));
  EXPECT_EQ(cell, 0);
  EXPECT_EQ(*file->tensors().head_bias, bias);
  EXPECT_EQ(file->CheckUnchanged().code(), absl::StatusCode::kUnavailable);
}

// What is written over the buckets of a mapped vocabulary is found, but as no row outside of the table.
TEST_F(ModelFileTest, OfAMappedFileThatIsOverwrittenNoRowIsOutside) {
  const std::string bytes = Write(Contents(kTiny));
  const auto file = ModelFile::Open(path_, {.memory = FileMemory::kMap});
  ASSERT_TRUE(file.ok());
  ASSERT_EQ(file->vocabularies()[0].Find(int64_t{7}), 2);
  const uint64_t offset = file->header().tensors(0).offset();
  VocabularyBucket bucket;
  for (int place = 0; place < VocabularyBucket::kPlaces; ++place) {
    bucket.key[place] = 7;
    bucket.row[place] = 5;  // the table has 5 rows
  }
  const int fd = ::open(path_.c_str(), O_WRONLY);
  for (uint64_t at = 0; at < file->header().tensors(0).bytes(); at += sizeof(bucket)) {
    ASSERT_EQ(::pwrite(fd, &bucket, sizeof(bucket), static_cast<off_t>(offset + at)), ssize_t{sizeof(bucket)});
  }
  ::close(fd);
  EXPECT_EQ(file->vocabularies()[0].Find(int64_t{7}), kOutOfVocabularyRow);
}

// A vocabulary of several of the pieces in which files are loaded, which end at multiples of 2 MiB of the file.
TEST_F(ModelFileTest, EveryBucketIsChecked) {
  const std::string bytes = Write(Contents(kTiny, 300'000));
  const auto file = ModelFile::OpenUnverified(path_, {});
  ASSERT_TRUE(file.ok()) << file.status();
  const uint64_t begin = file->header().tensors(0).offset();
  const uint64_t end = begin + file->header().tensors(0).bytes();
  constexpr uint64_t kBucket = sizeof(VocabularyBucket), kPiece = 2 << 20;
  ASSERT_GT(end, 2 * kPiece);
  const int fd = ::open(path_.c_str(), O_WRONLY);
  for (const uint64_t at : {begin, kPiece - kBucket, kPiece, 2 * kPiece - kBucket, 2 * kPiece, end - kBucket}) {
    VocabularyBucket bucket{};
    bucket.row[0] = 1;
    ASSERT_EQ(::pwrite(fd, &bucket, kBucket, static_cast<off_t>(at)), ssize_t{kBucket});
    for (const FileMemory memory : {FileMemory::kCopy, FileMemory::kMap}) {
      const absl::Status status = ModelFile::OpenUnverified(path_, {.memory = memory}).status();
      EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << at;
      EXPECT_THAT(std::string(status.message()), HasSubstr("tensor 'vocabulary.a': a bucket has vocabulary rows"))
          << at;
    }
    ASSERT_EQ(::pwrite(fd, &bytes[at], kBucket, static_cast<off_t>(at)), ssize_t{kBucket});
  }
  ::close(fd);
  EXPECT_TRUE(Open().ok());
}

TEST_F(ModelFileTest, OnlyChecksumsOfTensorsCanBeLeftOut) {
  std::string bytes = Write(Contents(kTiny));
  const auto sound = ModelFile::OpenUnverified(path_, {});
  ASSERT_TRUE(sound.ok()) << sound.status();
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  WriteBytes(path_, bytes);
  EXPECT_FALSE(Open().ok());
  EXPECT_TRUE(ModelFile::OpenUnverified(path_, {}).ok());
  bytes.pop_back();
  WriteBytes(path_, bytes);
  EXPECT_FALSE(ModelFile::OpenUnverified(path_, {}).ok());
}

TEST_F(ModelFileTest, RefusesEveryTruncation) {
  const std::string bytes = Write(Contents(kTiny));
  ASSERT_TRUE(Open().ok());
  for (size_t size = bytes.size(); size-- > 0;) {
    std::filesystem::resize_file(path_, size);
    const absl::Status status = Open();
    ASSERT_EQ(status.code(), absl::StatusCode::kDataLoss) << size;
    ASSERT_THAT(std::string(status.message()), HasSubstr(path_));
  }
  WriteBytes(path_, bytes + std::string(1, '\0'));
  EXPECT_EQ(Open().code(), absl::StatusCode::kDataLoss);
}

TEST_F(ModelFileTest, RefusesEveryFlippedBit) {
  const std::string bytes = Write(Contents(kTiny));
  const int fd = ::open(path_.c_str(), O_WRONLY);
  ASSERT_GE(fd, 0);
  for (size_t i = 0; i < bytes.size() * 8; ++i) {
    const char flipped = static_cast<char>(bytes[i / 8] ^ (1 << i % 8));
    ASSERT_EQ(::pwrite(fd, &flipped, 1, static_cast<off_t>(i / 8)), 1);
    const bool version = i / 8 >= 8 && i / 8 < 12;
    ASSERT_EQ(Open().code(), version ? absl::StatusCode::kFailedPrecondition : absl::StatusCode::kDataLoss) << i;
    ASSERT_EQ(::pwrite(fd, &bytes[i / 8], 1, static_cast<off_t>(i / 8)), 1);
  }
  EXPECT_TRUE(Open().ok());
  ::close(fd);
}

TEST_F(ModelFileTest, RefusesAnotherVersion) {
  std::string bytes = Write(Contents(kTiny));
  for (const uint32_t version : {0u, 3u, UINT32_MAX}) {
    std::memcpy(&bytes[8], &version, sizeof(version));
    WriteBytes(path_, bytes);
    const absl::Status status = Open();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()), HasSubstr(absl::StrCat("format version ", version)));
    const bool newer = std::string(status.message()).find("newer than this program understands") != std::string::npos;
    EXPECT_EQ(newer, version > 0) << status;
  }
}

// So that a program which knows float32 alone says that the file is too new, and not that it is damaged.
TEST_F(ModelFileTest, FewerBitsMakeVersion2) {
  Contents contents(kTiny);
  const auto version = [this](const Contents& of) { return static_cast<int>(Write(of)[8]); };
  EXPECT_EQ(version(contents), 1);
  for (Precision StoragePrecision::*group :
       {&StoragePrecision::embeddings, &StoragePrecision::dense, &StoragePrecision::experts}) {
    for (const Precision precision : {Precision::kBfloat16, Precision::kInt8}) {
      contents.file.precision = {};
      contents.file.precision.*group = precision;
      EXPECT_EQ(version(contents), 2);
      EXPECT_TRUE(Open().ok());
    }
  }
}

// Files whose checksums are right and whose contents are not.
class ForgedFileTest : public ModelFileTest {
 protected:
  ForgedFileTest() : contents_(kTiny) {
    // Room for headers that grow: a label that is dropped makes the place between header and tensors.
    contents_.file.header.mutable_provenance()->set_label(std::string(1000, 'x'));
    bytes_ = Write(contents_);
  }

  v1::ModelFileHeader Header() const {
    uint64_t size = 0;
    std::memcpy(&size, &bytes_[16], sizeof(size));
    v1::ModelFileHeader header;
    EXPECT_TRUE(header.ParseFromArray(&bytes_[kPreambleBytes], static_cast<int>(size)));
    return header;
  }
  // Writes the file with this header over `tensors`' bytes, checksum and all.
  void WriteForged(const std::string& header, std::string bytes) {
    const size_t first = Header().tensors(0).offset();
    ASSERT_LE(kPreambleBytes + header.size(), first);
    const uint64_t size = header.size(), checksum = XXH3_64bits(header.data(), header.size());
    std::memcpy(&bytes[16], &size, sizeof(size));
    std::memcpy(&bytes[24], &checksum, sizeof(checksum));
    std::fill(bytes.begin() + kPreambleBytes, bytes.begin() + static_cast<ptrdiff_t>(first), '\0');
    std::copy(header.begin(), header.end(), bytes.begin() + kPreambleBytes);
    WriteBytes(path_, bytes);
  }
  absl::Status OpenForged(const std::function<void(v1::ModelFileHeader*)>& change) {
    v1::ModelFileHeader header = Header();
    header.mutable_provenance()->clear_label();
    change(&header);
    WriteForged(header.SerializeAsString(), bytes_);
    return Open();
  }

  Contents contents_;
  std::string bytes_;
};

TEST_F(ForgedFileTest, TheForgerCanWriteASoundFile) {
  const absl::Status status = OpenForged([](auto*) {});
  EXPECT_TRUE(status.ok()) << status;
}

TEST_F(ForgedFileTest, RefusesHeadersThatDoNotFit) {
  using Header = v1::ModelFileHeader;
  // Tensors: vocabulary.a, embedding.a.weight [5, 1], blocks.0.stacked.weight [3, 1], bias, ...
  constexpr int kTable = 1, kStacked = 2;
  struct {
    const char* name;
    std::function<void(Header*)> change;
    const char* error;
  } const cases[] = {
      {"rows in the shape", [](Header* h) { h->mutable_tensors(kTable)->set_shape(0, 6); }, "is [6, 1], the config"},
      {"a transposed shape", [](Header* h) { h->mutable_tensors(kTable)->mutable_shape()->SwapElements(0, 1); },
       "[1, 5]"},
      {"a shape of fewer dimensions", [](Header* h) { h->mutable_tensors(kTable)->mutable_shape()->RemoveLast(); },
       "[5]"},
      {"no shape", [](Header* h) { h->mutable_tensors(kTable)->clear_shape(); }, "is []"},
      {"a shape that overflows", [](Header* h) { h->mutable_tensors(kTable)->set_shape(0, (uint64_t{1} << 62) + 5); },
       "the config asks for"},
      {"another type", [](Header* h) { h->mutable_tensors(kTable)->set_data_type(Header::Tensor::UINT8); },
       "cannot have data type UINT8"},
      {"an unknown type",
       [](Header* h) { h->mutable_tensors(kTable)->set_data_type(static_cast<Header::Tensor::DataType>(77)); },
       "cannot have data type"},
      {"fewer bits than the bytes",
       [](Header* h) { h->mutable_tensors(kTable)->set_data_type(Header::Tensor::BFLOAT16); }, "has 20 bytes"},
      {"int8 of another size",
       [](Header* h) { h->mutable_tensors(kTable)->set_data_type(Header::Tensor::SCALED_INT8); }, "has 20 bytes"},
      {"fewer bits for a bias",
       [](Header* h) { h->mutable_tensors(kStacked + 1)->set_data_type(Header::Tensor::BFLOAT16); },
       "cannot have data type BFLOAT16"},
      {"another name", [](Header* h) { h->mutable_tensors(kTable)->set_name("embedding.b.weight"); }, "is not there"},
      {"no tensors", [](Header* h) { h->clear_tensors(); }, "behind the last tensor"},
      {"one tensor less", [](Header* h) { h->mutable_tensors()->RemoveLast(); }, "behind the last tensor"},
      {"an offset within the header", [](Header* h) { h->mutable_tensors(0)->set_offset(0); }, "outside of its place"},
      {"an offset beyond the file", [](Header* h) { h->mutable_tensors(kTable)->set_offset(1 << 20); },
       "outside of its place"},
      {"an offset near 2^64", [](Header* h) { h->mutable_tensors(kTable)->set_offset(UINT64_MAX - 63); },
       "outside of its place"},
      {"an unaligned offset",
       [](Header* h) { h->mutable_tensors(kTable)->set_offset(h->tensors(kTable).offset() + 4); },
       "outside of its place"},
      {"two tensors in one place", [](Header* h) { *h->mutable_tensors(kStacked) = h->tensors(kTable); },
       "outside of its place"},
      {"too many bytes", [](Header* h) { h->mutable_tensors(kTable)->set_bytes(1 << 20); }, "outside of its place"},
      {"bytes near 2^64", [](Header* h) { h->mutable_tensors(kTable)->set_bytes(UINT64_MAX); }, "outside of its place"},
      {"one byte less", [](Header* h) { h->mutable_tensors(kTable)->set_bytes(h->tensors(kTable).bytes() - 1); }, "is"},
      {"a wrong checksum", [](Header* h) { h->mutable_tensors(kTable)->set_xxh3(h->tensors(kTable).xxh3() ^ 1); },
       "checksum of tensor"},
      {"no rows", [](Header* h) { h->mutable_vocabularies(0)->set_rows(0); }, "cannot have 0 rows"},
      {"reserved rows less one", [](Header* h) { h->mutable_vocabularies(0)->set_rows(1); }, "cannot have 1 rows"},
      {"fewer rows than ids", [](Header* h) { h->mutable_vocabularies(0)->set_rows(4); }, "vocabulary row"},
      {"one row more", [](Header* h) { h->mutable_vocabularies(0)->set_rows(6); },
       "is [5, 1], the config asks for [6, 1]"},
      {"2^32 rows", [](Header* h) { h->mutable_vocabularies(0)->set_rows(uint64_t{1} << 32); }, "cannot have"},
      {"2^32 + 5 rows", [](Header* h) { h->mutable_vocabularies(0)->set_rows((uint64_t{1} << 32) + 5); },
       "cannot have"},
      {"no probes", [](Header* h) { h->mutable_vocabularies(0)->set_max_probes(0); }, "max_probes"},
      {"probes without end", [](Header* h) { h->mutable_vocabularies(0)->set_max_probes(UINT32_MAX); }, "max_probes"},
      {"no vocabularies", [](Header* h) { h->clear_vocabularies(); }, "one vocabulary a table"},
      {"two vocabularies", [](Header* h) { h->add_vocabularies(); }, "one vocabulary a table"},
      {"another's vocabulary", [](Header* h) { h->mutable_vocabularies(0)->set_feature("b"); }, "is of feature 'b'"},
      {"another size of the file", [](Header* h) { h->set_file_bytes(h->file_bytes() - 1); }, "its header says"},
      {"no config", [](Header* h) { h->clear_config(); }, "features"},
      {"a config that is wrong", [](Header* h) { h->mutable_config()->mutable_features(0)->set_embedding_width(0); },
       "embedding_width"},
      {"wider blocks", [](Header* h) { h->mutable_config()->mutable_network()->mutable_blocks(0)->set_width(2); },
       "the config asks for [4, 1]"},
      {"more blocks", [](Header* h) { h->mutable_config()->mutable_network()->add_blocks()->set_width(1); },
       "'blocks.1.stacked.weight' is not there"},
      {"a table of hashes",
       [](Header* h) { h->mutable_config()->mutable_features(0)->mutable_vocabulary()->set_hash_buckets(1u << 30); },
       "cannot have 5 rows"},
  };
  for (const auto& c : cases) {
    const absl::Status status = OpenForged(c.change);
    EXPECT_FALSE(status.ok()) << c.name;
    EXPECT_THAT(std::string(status.message()), StartsWith(absl::StrCat("'", path_, "': "))) << c.name;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.error)) << c.name;
  }
}

TEST_F(ForgedFileTest, RefusesBucketsWithRowsOutsideOfTheTable) {
  const v1::ModelFileHeader::Tensor tensor = Header().tensors(0);
  ASSERT_EQ(tensor.name(), "vocabulary.a");
  for (size_t place = 0; place < VocabularyBucket::kPlaces; ++place) {
    for (const uint32_t row : {1u, 5u, UINT32_MAX}) {
      std::string bytes = bytes_;
      std::memcpy(&bytes[tensor.offset() + offsetof(VocabularyBucket, row) + place * sizeof(row)], &row, sizeof(row));
      v1::ModelFileHeader header = Header();
      header.mutable_tensors(0)->set_xxh3(XXH3_64bits(&bytes[tensor.offset()], tensor.bytes()));
      WriteForged(header.SerializeAsString(), bytes);
      const absl::Status status = Open();
      EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
      EXPECT_THAT(std::string(status.message()), HasSubstr("vocabulary rows"));
    }
  }
}

TEST_F(ForgedFileTest, RefusesAHeaderThatIsNoMessage) {
  const google::protobuf::LogSilencer silence;
  for (const std::string& header : {std::string("\xff\xff\xff"), std::string(600, '\x08'), std::string()}) {
    WriteForged(header, bytes_);
    EXPECT_EQ(Open().code(), absl::StatusCode::kDataLoss);
  }
}

// Random bytes of the header changed, the checksum right: refused or opened, never a crash.
TEST_F(ForgedFileTest, RandomHeadersDoNotCrash) {
  v1::ModelFileHeader sound = Header();
  sound.mutable_provenance()->clear_label();
  const std::string header = sound.SerializeAsString();
  const google::protobuf::LogSilencer silence;
  std::mt19937 engine(17);
  int opened = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string changed = header;
    for (int n = static_cast<int>(engine() % 3); n >= 0; --n)
      changed[engine() % changed.size()] = static_cast<char>(engine());
    WriteForged(changed, bytes_);
    opened += Open().ok();
  }
  EXPECT_LT(opened, 1500);
}

TEST_F(ModelFileTest, WritesNothingForAWrongConfig) {
  Contents contents(kTiny);
  contents.file.header.mutable_config()->mutable_features(0)->set_id(0);
  EXPECT_FALSE(WriteModelFile(path_, contents.file).ok());
  EXPECT_FALSE(WriteModelFile("/dev/full", Contents(kTiny).file).ok());
  EXPECT_TRUE(directory_.Names().empty());
}

TEST_F(ModelFileTest, RefusesWhatIsNoModelFile) {
  EXPECT_EQ(Open().code(), absl::StatusCode::kNotFound);
  for (const std::string& bytes : {std::string(), std::string("HILOMOE\n"), std::string(1000, '\0'),
                                   std::string("HILOMOE\n\1\0\0\0\0\0\0\0", 16) + std::string(16, '\xff')}) {
    WriteBytes(path_, bytes);
    EXPECT_EQ(Open().code(), absl::StatusCode::kDataLoss);
  }
}

}  // namespace
}  // namespace hilomoe
