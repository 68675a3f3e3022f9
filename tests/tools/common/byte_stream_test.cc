// ByteSink and ByteSource against each other and against damaged streams.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zstd.h>

#include <memory>
#include <random>
#include <string>
#include <string_view>

#include "tools/common/byte_sink.h"
#include "tools/common/byte_source.h"

namespace hilomoe {
namespace {

using ::testing::HasSubstr;

std::string Compress(Compression compression, std::string_view bytes) {
  std::string out;
  auto sink = ByteSink::Create(compression, [&](std::string_view part) {
    out.append(part);
    return absl::OkStatus();
  });
  EXPECT_TRUE((*sink)->Append(bytes.substr(0, bytes.size() / 3)).ok());
  EXPECT_TRUE((*sink)->Append(bytes.substr(bytes.size() / 3)).ok());
  EXPECT_TRUE((*sink)->Finish().ok());
  return out;
}

// Everything up to the end or the first error.
absl::Status ReadAll(std::string stored, size_t read_size, std::string* bytes) {
  absl::StatusOr<std::unique_ptr<ByteSource>> source = ByteSource::OpenBytes(std::move(stored));
  if (!source.ok()) return source.status();
  std::string buffer(read_size, '\0');
  while (true) {
    const absl::StatusOr<size_t> count = (*source)->Read(buffer.data(), buffer.size());
    if (!count.ok()) return count.status();
    if (*count == 0) break;
    bytes->append(buffer, 0, *count);
  }
  EXPECT_EQ((*source)->bytes_read(), (*source)->total_bytes());
  return absl::OkStatus();
}

// Compressible, but not to almost nothing.
std::string Text(size_t size) {
  std::mt19937 random(7);
  std::string text;
  while (text.size() < size) text += std::to_string(random() % 1000) + ",";
  text.resize(size);
  return text;
}

class CompressedTest : public ::testing::TestWithParam<Compression> {};

TEST_P(CompressedTest, ReadsBackWhatWasWritten) {
  for (const size_t size : {0, 1, 2, 3, 1000, 1'000'000}) {
    const std::string text = Text(size);
    const std::string stored = Compress(GetParam(), text);
    for (const size_t read_size : {1, 4096, 1 << 20}) {
      if (size > 1000 && read_size == 1) continue;
      std::string bytes;
      ASSERT_TRUE(ReadAll(stored, read_size, &bytes).ok());
      ASSERT_EQ(bytes, text) << size << " bytes, read by " << read_size;
    }
  }
}

TEST_P(CompressedTest, CompressesEqualInputToEqualBytes) {
  EXPECT_EQ(Compress(GetParam(), Text(100'000)), Compress(GetParam(), Text(100'000)));
}

TEST_P(CompressedTest, PassesOnTheOutputsError) {
  auto sink = ByteSink::Create(GetParam(), [](std::string_view) { return absl::ResourceExhaustedError("disk full"); });
  absl::Status status = (*sink)->Append(Text(1000));
  if (status.ok()) status = (*sink)->Finish();
  EXPECT_EQ(status, absl::ResourceExhaustedError("disk full"));
}

INSTANTIATE_TEST_SUITE_P(All, CompressedTest,
                         ::testing::Values(Compression::kNone, Compression::kGzip, Compression::kZstd));

class DamagedTest : public ::testing::TestWithParam<Compression> {};

TEST_P(DamagedTest, ReadsSeveralMembers) {
  std::string bytes;
  const std::string stored = Compress(GetParam(), "one,") + Compress(GetParam(), "") + Compress(GetParam(), "two,") +
                             Compress(GetParam(), "three");
  ASSERT_TRUE(ReadAll(stored, 4096, &bytes).ok());
  EXPECT_EQ(bytes, "one,two,three");
}

TEST_P(DamagedTest, SaysThatEveryTruncatedStreamIsTruncated) {
  const std::string text = Text(2000);
  const std::string stored = Compress(GetParam(), text);
  // Fewer than four bytes do not show what they are.
  for (size_t size = 4; size < stored.size(); ++size) {
    std::string bytes;
    const absl::Status status = ReadAll(stored.substr(0, size), 64, &bytes);
    ASSERT_EQ(status.code(), absl::StatusCode::kDataLoss) << size << " bytes";
    ASSERT_THAT(std::string(status.message()), HasSubstr("truncated"));
    ASSERT_TRUE(std::string_view(text).starts_with(bytes));
  }
}

TEST_P(DamagedTest, SaysThatASecondMemberIsTruncated) {
  const std::string second = Compress(GetParam(), Text(500));
  std::string bytes;
  const absl::Status status = ReadAll(Compress(GetParam(), "one") + second.substr(0, second.size() - 1), 4096, &bytes);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
}

TEST_P(DamagedTest, RefusesWhatFollowsTheStream) {
  std::string bytes;
  const absl::Status status = ReadAll(Compress(GetParam(), "one") + "garbage", 4096, &bytes);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
}

// Both formats carry a checksum of the content, so that a changed byte either fails or changes nothing.
TEST_P(DamagedTest, NeverReturnsWrongBytesAsRight) {
  const std::string text = Text(2000);
  const std::string stored = Compress(GetParam(), text);
  int refused = 0;
  for (size_t at = 4; at < stored.size(); ++at) {
    std::string changed = stored;
    changed[at] = static_cast<char>(changed[at] ^ 0x10);
    std::string bytes;
    if (ReadAll(changed, 512, &bytes).ok()) {
      ASSERT_EQ(bytes, text) << "byte " << at;
    } else {
      ++refused;
    }
  }
  // All but a few bytes of a header (gzip's time stamp, system and level).
  EXPECT_GT(refused, static_cast<int>(stored.size()) - 16);
}

INSTANTIATE_TEST_SUITE_P(All, DamagedTest, ::testing::Values(Compression::kGzip, Compression::kZstd));

TEST(ByteSourceTest, ReadsASkippableFrameInFront) {
  const std::string skippable("\x50\x2a\x4d\x18\x03\x00\x00\x00xyz", 11);
  std::string bytes;
  ASSERT_TRUE(ReadAll(skippable + Compress(Compression::kZstd, "content"), 4096, &bytes).ok());
  EXPECT_EQ(bytes, "content");
}

// The last block is decoded at once but given out in many steps, and no checksum follows it.
TEST(ByteSourceTest, ReadsAFrameWithoutChecksumInSmallSteps) {
  const std::string text = Text(100'000);
  std::string stored(ZSTD_compressBound(text.size()), '\0');
  stored.resize(ZSTD_compress(stored.data(), stored.size(), text.data(), text.size(), 1));
  std::string bytes;
  const absl::Status status = ReadAll(stored, 100, &bytes);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(bytes, text);
}

TEST(ByteSourceTest, NamesTheReasonForAFileThatCannotBeRead) {
  EXPECT_EQ(ByteSource::Open("/no/such/file").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(ByteSource::Open("/").status().message()), HasSubstr("directory"));
}

TEST(CompressionTest, KnowsItsNames) {
  EXPECT_EQ(ParseCompression("none"), Compression::kNone);
  EXPECT_EQ(ParseCompression("gzip"), Compression::kGzip);
  EXPECT_EQ(ParseCompression("zstd"), Compression::kZstd);
  EXPECT_EQ(ParseCompression("lz4"), std::nullopt);
  EXPECT_EQ(FileSuffix(Compression::kZstd), ".zst");
}

}  // namespace
}  // namespace hilomoe
