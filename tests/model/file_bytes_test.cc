// A file's bytes are there as they were when it was opened, or it is known that they are not.
#include "model/file_bytes.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/file_io.h"
#include "tests/model/test_files.h"

namespace hilomoe {
namespace {

using testing::HasSubstr;

TEST(FileBytesTest, HoldsTheFileAligned) {
  const TestDirectory directory;
  for (const size_t size : {size_t{1}, size_t{63}, (size_t{2} << 20) - 1, size_t{2} << 20, (size_t{2} << 20) + 1}) {
    std::string content(size, '\0');
    for (size_t i = 0; i < size; ++i) content[i] = static_cast<char>(i * 131 >> 3);
    WriteBytes(directory / "f", content);
    auto bytes = FileBytes::Read(directory / "f");
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    ASSERT_EQ(bytes->size(), size);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(bytes->data()) % 64, 0);
    FileBytes moved = std::move(*bytes);
    WriteBytes(directory / "f", "changed");  // what was read stays
    EXPECT_EQ(std::memcmp(moved.data(), content.data(), size), 0);
  }
}

TEST(FileBytesTest, AnEmptyFileIsEmpty) {
  const TestDirectory directory;
  WriteBytes(directory / "f", "");
  EXPECT_EQ(FileBytes::Read(directory / "f")->size(), 0);
  EXPECT_EQ(*ReadFile(directory / "f"), "");
}

TEST(FileBytesTest, RefusesWhatIsNoFile) {
  const TestDirectory directory;
  const auto missing = FileBytes::Read(directory / "f");
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr(absl::StrCat("'", directory / "f", "'")));
  EXPECT_FALSE(FileBytes::Read(directory.path()).ok());
  EXPECT_FALSE(FileBytes::Read("/dev/zero").ok());
  // A pipe that nobody writes to: an error, not a wait. The alarm ends the test if it does wait.
  ASSERT_EQ(::mkfifo((directory / "pipe").c_str(), 0600), 0);
  ::alarm(20);
  EXPECT_FALSE(FileBytes::Read(directory / "pipe").ok());
  ::alarm(0);
}

class MappedFileTest : public testing::Test {
 protected:
  MappedFileTest() {
    WriteBytes(path_, std::string(kBytes, 'x'));
    // Longer than the clock of time stamps takes to tick.
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_EQ(::stat(path_.c_str(), &opened_), 0);
    bytes_ = std::make_unique<FileBytes>(*FileBytes::Open(path_, FileMemory::kMap));
    EXPECT_TRUE(bytes_->Load(5000, kBytes).ok());
    EXPECT_TRUE(bytes_->Load(0, 5000).ok());
    EXPECT_TRUE(bytes_->FinishLoading().ok());
  }
  void ExpectChanged() const {
    const absl::Status status = bytes_->CheckUnchanged();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(status.message()), HasSubstr(absl::StrCat("'", path_, "'")));
  }
  std::string Content() const { return {reinterpret_cast<const char*>(bytes_->data()), bytes_->size()}; }

  static constexpr size_t kBytes = 100'000;
  const TestDirectory directory_;
  const std::string path_ = directory_ / "f";
  struct stat opened_ {};
  std::unique_ptr<FileBytes> bytes_;
};

TEST_F(MappedFileTest, ReadsTheFile) {
  EXPECT_EQ(Content(), std::string(kBytes, 'x'));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(bytes_->data()) % 64, 0);
  const FileBytes moved = std::move(*bytes_);
  EXPECT_TRUE(moved.CheckUnchanged().ok());
  EXPECT_EQ(std::memcmp(moved.data(), std::string(kBytes, 'x').data(), kBytes), 0);
}

TEST_F(MappedFileTest, AFileThatIsReplacedStays) {
  ASSERT_TRUE(WriteFile(path_, "another one").ok());
  EXPECT_TRUE(bytes_->CheckUnchanged().ok());
  EXPECT_EQ(Content(), std::string(kBytes, 'x'));
  std::filesystem::remove(path_);
  EXPECT_TRUE(bytes_->CheckUnchanged().ok());
}

TEST_F(MappedFileTest, AnOverwriteInPlaceIsFound) {
  const int fd = ::open(path_.c_str(), O_WRONLY);
  ASSERT_EQ(::pwrite(fd, "y", 1, kBytes / 2), 1);
  ::close(fd);
  ExpectChanged();
}

TEST_F(MappedFileTest, ATruncationIsFoundWhetherItIsReadOrNot) {
  std::filesystem::resize_file(path_, 0);
  ExpectChanged();
  EXPECT_EQ(Content(), std::string(kBytes, '\0'));
  ExpectChanged();
  // Not even the old bytes under the old date make it whole again: zeros have been read.
  const int fd = ::open(path_.c_str(), O_WRONLY);
  const std::string content(kBytes, 'x');
  const timespec times[] = {opened_.st_atim, opened_.st_mtim};
  ASSERT_EQ(::pwrite(fd, content.data(), kBytes, 0), static_cast<ssize_t>(kBytes));
  ASSERT_EQ(::futimens(fd, times), 0);
  ::close(fd);
  ExpectChanged();
}

TEST(MappedFileRaceTest, ATruncationWhileItIsLoadedIsNoCrash) {
  const TestDirectory directory;
  WriteBytes(directory / "f", std::string(100'000, 'x'));
  auto bytes = FileBytes::Open(directory / "f", FileMemory::kMap);
  ASSERT_TRUE(bytes.ok());
  std::filesystem::resize_file(directory / "f", 50'000);
  EXPECT_TRUE(bytes->Load(0, 100'000).ok());
  EXPECT_EQ(bytes->FinishLoading().code(), absl::StatusCode::kUnavailable);
  auto copy = FileBytes::Open(directory / "f", FileMemory::kCopy);
  ASSERT_TRUE(copy.ok());
  std::filesystem::resize_file(directory / "f", 40'000);
  EXPECT_EQ(copy->Load(0, 50'000).code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace hilomoe
