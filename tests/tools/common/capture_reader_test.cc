#include "tools/common/capture_reader.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/checksum.h"
#include "tests/model/test_files.h"

namespace hilomoe {
namespace {

using ::testing::HasSubstr;

std::string LittleEndian(uint32_t value) {
  std::string bytes;
  for (int i = 0; i < 4; ++i) bytes += static_cast<char>(value >> (8 * i));
  return bytes;
}

// The layout as the proto describes it, written a second time.
std::string FileHeader(uint32_t version = 1) { return "HILOCAP\n" + LittleEndian(version) + LittleEndian(0); }

std::string Record(const v1::CaptureRecord& record) {
  const std::string bytes = record.SerializeAsString();
  return LittleEndian(static_cast<uint32_t>(bytes.size())) +
         LittleEndian(static_cast<uint32_t>(ChecksumOf(bytes.data(), bytes.size()))) + bytes;
}

std::string Start() {
  v1::CaptureRecord record;
  record.mutable_start()->set_unix_ns(1234);
  record.mutable_start()->set_one_in(10);
  return Record(record);
}

std::string Request(uint64_t offset_ns) {
  v1::CaptureRecord record;
  record.mutable_request()->set_offset_ns(offset_ns);
  record.mutable_request()->set_method("/hilomoe.v1.ScoringService/Score");
  record.mutable_request()->set_request(std::string("bytes\0of a message", 18));
  return Record(record);
}

class CaptureReaderTest : public ::testing::Test {
 protected:
  absl::StatusOr<CaptureReader> Open(const std::string& bytes) {
    WriteBytes(path_, bytes);
    return CaptureReader::Open(path_);
  }

  const TestDirectory directory_;
  const std::string path_ = directory_ / "requests.capture";
};

TEST_F(CaptureReaderTest, ReadsWhatIsThere) {
  auto reader = Open(FileHeader() + Start() + Request(5) + Request(7));
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ(reader->start().unix_ns(), 1234);
  EXPECT_EQ(reader->start().one_in(), 10);
  v1::CapturedRequest request;
  for (const uint64_t offset_ns : {5, 7}) {
    const absl::StatusOr<bool> found = reader->Next(&request);
    ASSERT_TRUE(found.ok() && *found) << found.status();
    EXPECT_EQ(request.offset_ns(), offset_ns);
    EXPECT_EQ(request.request().size(), 18);
  }
  for (int i = 0; i < 2; ++i) {
    const absl::StatusOr<bool> found = reader->Next(&request);
    EXPECT_TRUE(found.ok() && !*found);
    EXPECT_FALSE(reader->truncated());
  }
}

// Wherever the writer was killed, the whole records before are read.
TEST_F(CaptureReaderTest, AFileThatIsCutOffIsReadUpToThere) {
  const std::string whole = FileHeader() + Start() + Request(5);
  const std::string last = Request(7);
  for (size_t kept = 0; kept <= last.size(); ++kept) {
    auto reader = Open(whole + last.substr(0, kept));
    ASSERT_TRUE(reader.ok()) << reader.status();
    v1::CapturedRequest request;
    int requests = 0;
    absl::StatusOr<bool> found = reader->Next(&request);
    for (; found.ok() && *found; found = reader->Next(&request)) ++requests;
    EXPECT_TRUE(found.ok()) << found.status();
    EXPECT_EQ(requests, kept == last.size() ? 2 : 1) << kept;
    EXPECT_EQ(reader->truncated(), kept > 0 && kept < last.size()) << kept;
  }
}

// Every byte of a record counts, but for those of its size, which may make it look cut off.
TEST_F(CaptureReaderTest, DamageIsFound) {
  const std::string whole = FileHeader() + Start() + Request(5);
  const size_t record = FileHeader().size() + Start().size();
  for (size_t i = record; i < whole.size(); ++i) {
    std::string bytes = whole;
    bytes[i] = static_cast<char>(bytes[i] ^ 1);
    auto reader = Open(bytes);
    ASSERT_TRUE(reader.ok()) << reader.status();
    v1::CapturedRequest request;
    const absl::StatusOr<bool> found = reader->Next(&request);
    if (i < record + 4 && found.ok()) {
      EXPECT_TRUE(!*found && reader->truncated()) << i;
      continue;
    }
    EXPECT_EQ(found.status().code(), absl::StatusCode::kDataLoss) << i;
    EXPECT_THAT(std::string(found.status().message()), HasSubstr("at byte " + std::to_string(record)));
  }
  auto reader = Open(FileHeader() + Start() + std::string(100, '\0'));
  ASSERT_TRUE(reader.ok());
  v1::CapturedRequest request;
  EXPECT_EQ(reader->Next(&request).status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(CaptureReaderTest, OtherFilesAreRefused) {
  EXPECT_EQ(CaptureReader::Open(directory_ / "none").status().code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(CaptureReader::Open(directory_ / ".").ok());
  EXPECT_EQ(Open(FileHeader(2) + Start()).status().code(), absl::StatusCode::kFailedPrecondition);
  for (const std::string& bytes :
       {std::string(), std::string("HILOCAP"), std::string("HILOMOE\n") + std::string(100, 'x'), FileHeader(),
        FileHeader() + Start().substr(0, 10), FileHeader() + Request(5)}) {
    EXPECT_EQ(Open(bytes).status().code(), absl::StatusCode::kDataLoss) << bytes;
  }
}

}  // namespace
}  // namespace hilomoe
