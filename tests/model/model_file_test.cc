// A model file is read back as it was written; one that is damaged in any way is not opened.
#include "model/model_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"
#include "tests/model/model_file_fixture.h"

namespace hilomoe {
namespace {

using google::protobuf::util::MessageDifferencer;
using testing::HasSubstr;

constexpr char kRich[] = R"(network {
  blocks { width: 5 experts { layers: 2 experts_per_layer: 3 } } blocks { width: 4 } })";

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
