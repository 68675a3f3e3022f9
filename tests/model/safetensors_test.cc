// safetensors: what is written is read back, by the format's own rules, and nothing unsound is taken in.
#include "model/safetensors.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/model/test_files.h"

namespace hilomoe {
namespace {

using testing::HasSubstr;

// A file of this header and these bytes, whatever they hold.
std::string Raw(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  std::string file(reinterpret_cast<const char*>(&length), sizeof(length));
  return file + header + data;
}

class SafetensorsTest : public testing::Test {
 protected:
  absl::StatusOr<Safetensors> Read(const std::string& bytes) {
    WriteBytes(directory_ / "f", bytes);
    return Safetensors::Read(directory_ / "f");
  }
  // A file with one of each type.
  std::string Sample() {
    const std::vector<float> floats = {1.5F, -0.0F, std::numeric_limits<float>::denorm_min(), NAN, INFINITY, 6};
    const std::vector<int64_t> ids = {INT64_MIN, -1, INT64_MAX};
    const std::vector<double> doubles = {1e300};
    const std::vector<uint8_t> bytes = {0, 255, 7};
    const absl::Status status =
        WriteSafetensors(directory_ / "s", {MakeEntry("floats", "F32", {2, 3}, absl::MakeConstSpan(floats)),
                                            MakeEntry("bytes", "U8", {3}, absl::MakeConstSpan(bytes)),
                                            MakeEntry("i\"d\ns", "I64", {3}, absl::MakeConstSpan(ids)),
                                            MakeEntry("none", "F32", {0, 4}, absl::Span<const float>()),
                                            MakeEntry("doubles", "F64", {1, 1}, absl::MakeConstSpan(doubles))});
    EXPECT_TRUE(status.ok()) << status;
    return ReadBytes(directory_ / "s");
  }

  const TestDirectory directory_;
};

TEST_F(SafetensorsTest, RoundTrip) {
  const auto file = Read(Sample());
  ASSERT_TRUE(file.ok()) << file.status();
  const std::vector<float> floats = *file->Floats("floats", {2, 3});
  const std::vector<float> expected = {1.5F, -0.0F, std::numeric_limits<float>::denorm_min(), NAN, INFINITY, 6};
  ASSERT_EQ(floats.size(), 6);
  EXPECT_EQ(std::memcmp(floats.data(), expected.data(), 24), 0);
  EXPECT_EQ(*file->Int64s("i\"d\ns"), (std::vector<int64_t>{INT64_MIN, -1, INT64_MAX}));
  EXPECT_EQ(*file->Doubles("doubles"), (std::vector<double>{1e300}));
  EXPECT_EQ(*file->Bytes("bytes"), (std::vector<uint8_t>{0, 255, 7}));
  EXPECT_EQ(*file->Floats("none", {0, 4}), std::vector<float>{});
  EXPECT_EQ(file->Shape("floats"), (std::vector<size_t>{2, 3}));
  EXPECT_EQ(file->Shape("nothing"), std::vector<size_t>{});
  EXPECT_THAT(file->Names(), testing::UnorderedElementsAre("floats", "bytes", "i\"d\ns", "none", "doubles"));
}

// The layout as the format's description has it, read without the code under test.
TEST_F(SafetensorsTest, IsLaidOutAsTheFormatSays) {
  const std::string bytes = Sample();
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  EXPECT_EQ(length % 8, 0);
  const auto header = nlohmann::json::parse(bytes.substr(8, length));
  EXPECT_EQ(header.at("floats"), nlohmann::json({{"dtype", "F32"}, {"shape", {2, 3}}, {"data_offsets", {0, 24}}}));
  EXPECT_EQ(header.at("bytes").at("data_offsets"), (std::vector<int>{24, 27}));
  EXPECT_EQ(header.at("i\"d\ns").at("data_offsets"), (std::vector<int>{27, 51}));
  EXPECT_EQ(bytes.size(), 8 + length + 59);
  EXPECT_EQ(bytes.substr(8 + length + 24, 3), std::string("\0\xff\7", 3));
}

TEST_F(SafetensorsTest, RefusesAnotherTypeOrShape) {
  const auto file = Read(Sample());
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(file->Floats("nothing").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(file->Floats("doubles").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(file->Int64s("bytes").status().code(), absl::StatusCode::kInvalidArgument);
  const absl::Status shape = file->Floats("floats", {3, 2}).status();
  EXPECT_EQ(shape.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(shape.message()), HasSubstr("[2, 3], the config asks for F32 [3, 2]"));
  EXPECT_FALSE(file->Floats("floats", {6}).ok());
}

TEST_F(SafetensorsTest, ReadsWhatOthersWrite) {
  // Metadata, tensors in another order than their bytes, a type that is not read here, no padding.
  const auto file = Read(Raw(R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[],"data_offsets":[2,6]},)"
                             R"("a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}})",
                             std::string("\0\0\0\0\x80\x3f", 6)));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(*file->Floats("b"), std::vector<float>{1});
  EXPECT_FALSE(file->Floats("a").ok());
}

TEST_F(SafetensorsTest, RefusesEveryTruncation) {
  const std::string bytes = Sample();
  for (size_t size = bytes.size(); size-- > 0;) {
    std::filesystem::resize_file(directory_ / "s", size);
    const auto file = Safetensors::Read(directory_ / "s");
    ASSERT_EQ(file.status().code(), absl::StatusCode::kDataLoss) << size;
  }
  EXPECT_FALSE(Read(bytes + "x").ok());
  EXPECT_TRUE(Read(bytes).ok());
}

TEST_F(SafetensorsTest, RefusesUnsoundHeaders) {
  const auto one = [](const std::string& fields) { return R"({"t":{)" + fields + "}}"; };
  const std::string good = R"("dtype":"F32","shape":[2],"data_offsets":[0,8])";
  const std::string data(8, '\0');
  ASSERT_TRUE(Read(Raw(one(good), data)).ok());
  for (const std::string& header : {
           std::string(""),
           std::string("null"),
           std::string("[]"),
           std::string("{"),
           std::string("{}}"),
           std::string("{\"t\":3}"),
           std::string("{\"\xff\":3}"),
           std::string(1 << 20, '['),
           "{\"t\":" + std::string(1 << 20, '['),
           std::string(R"({"t":{}})"),
           one(R"("dtype":4,"shape":[2],"data_offsets":[0,8])"),
           one(R"("dtype":"F32","shape":2,"data_offsets":[0,8])"),
           one(R"("dtype":"F32","shape":["2"],"data_offsets":[0,8])"),
           one(R"("dtype":"F32","shape":[2.0],"data_offsets":[0,8])"),
           one(R"("dtype":"F32","shape":[-2,-1],"data_offsets":[0,8])"),
           one(R"("dtype":"F32","shape":[2],"data_offsets":[0])"),
           one(R"("dtype":"F32","shape":[2],"data_offsets":[0,8,8])"),
           one(R"("dtype":"F32","shape":[2],"data_offsets":[0,1e1])"),
           one(R"("dtype":"F32","shape":[2],"data_offsets":[-8,0])"),
           one(R"("dtype":"F32","shape":[2],"data_offsets":{"0":0})"),
           one(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])"),
           one(R"("dtype":"F32","shape":[2],"data_offsets":[0,16])"),
           one(R"("dtype":"F32","shape":[2],"data_offsets":[18446744073709551608,18446744073709551615])"),
           one(R"("dtype":"F32","shape":[3],"data_offsets":[0,8])"),
           one(R"("dtype":"F32","shape":[1],"data_offsets":[0,8])"),
           one(R"("dtype":"F32","shape":[1],"data_offsets":[4,8])"),                      // a hole
           one(R"("dtype":"F32","shape":[1],"data_offsets":[0,4])"),                      // bytes of nobody
           one(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8])"),  // 2^66 bytes
           one(R"("dtype":"F32","shape":[9223372036854775808,2],"data_offsets":[0,8])"),
           one(R"("dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,0])"),
           std::string(R"({"t":{)") + good + R"(},"u":{)" + good + "}}",  // the same bytes twice
           std::string(R"({"t":{"dtype":"U8","shape":[5],"data_offsets":[0,5]},)"
                       R"("u":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})"),
       }) {
    const auto file = Read(Raw(header, data));
    EXPECT_EQ(file.status().code(), absl::StatusCode::kDataLoss) << header.substr(0, 100);
  }
}

// Sizes whose product wraps to the right number of bytes, at every file size that the data may have.
TEST_F(SafetensorsTest, RefusesShapesThatOverflow) {
  for (size_t size = 0; size < 20; ++size) {
    const std::string rest = R"("r":{"dtype":"U8","shape":[)" + std::to_string(size) + R"(],"data_offsets":[0,)" +
                             std::to_string(size) + "]}";
    ASSERT_TRUE(Read(Raw("{" + rest + "}", std::string(size, 'x'))).ok());
    for (const char* shape : {"9223372036854775808", "4611686018427387904,4", "4294967296,4294967296"}) {
      const std::string empty = R"({"t":{"dtype":"F32","shape":[)" + std::string(shape) + R"(],"data_offsets":[0,0]},)";
      EXPECT_FALSE(Read(Raw(empty + rest + "}", std::string(size, 'x'))).ok()) << shape << " " << size;
    }
  }
}

TEST_F(SafetensorsTest, RefusesAHugeHeader) {
  for (const uint64_t length : {uint64_t{16}, uint64_t{1} << 40, UINT64_MAX - 8, UINT64_MAX - 7, UINT64_MAX}) {
    std::string bytes(reinterpret_cast<const char*>(&length), sizeof(length));
    EXPECT_FALSE(Read(bytes + "{}").ok()) << length;
  }
}

// Every single bit of the header.
TEST_F(SafetensorsTest, NoBitFlipCrashes) {
  const std::string bytes = Sample();
  for (size_t i = 0; i < (bytes.size() - 59) * 8; ++i) {
    std::string flipped = bytes;
    flipped[i / 8] = static_cast<char>(flipped[i / 8] ^ (1 << i % 8));
    const auto file = Read(flipped);
    if (!file.ok()) continue;
    for (const std::string& name : file->Names()) (void)file->Floats(name);
  }
}

TEST_F(SafetensorsTest, NothingIsWrittenToAFullDisk) {
  EXPECT_FALSE(WriteSafetensors("/dev/full", {MakeEntry("t", "U8", {0}, absl::Span<const uint8_t>())}).ok());
}

}  // namespace
}  // namespace hilomoe
