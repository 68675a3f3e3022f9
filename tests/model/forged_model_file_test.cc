// Model files whose checksums are right and whose contents are not.
#include <cstring>
#include <functional>
#include <random>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/stubs/logging.h"
#include "gtest/gtest.h"
#include "tests/model/model_file_fixture.h"

#define XXH_INLINE_ALL
#include "xxhash.h"

namespace hilomoe {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

constexpr size_t kPreambleBytes = 32;

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

}  // namespace
}  // namespace hilomoe
