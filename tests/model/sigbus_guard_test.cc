// Pages that a mapped file has lost read as zeros inside a guarded range, and end the process elsewhere.
#include "model/sigbus_guard.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/model/test_files.h"

namespace hilomoe {
namespace {

const size_t kPage = static_cast<size_t>(::sysconf(_SC_PAGESIZE));

// A file of some pages full of 'x', mapped.
class MappedFile {
 public:
  explicit MappedFile(size_t pages) : path_(directory_ / "f"), bytes_(pages * kPage) {
    WriteBytes(path_, std::string(bytes_, 'x'));
    const int fd = ::open(path_.c_str(), O_RDONLY);
    data_ = ::mmap(nullptr, bytes_, PROT_READ, MAP_SHARED, fd, 0);
    EXPECT_NE(data_, MAP_FAILED);
    ::close(fd);
  }
  ~MappedFile() { ::munmap(data_, bytes_); }

  void Truncate(size_t pages) { std::filesystem::resize_file(path_, pages * kPage); }
  char Read(size_t page) const { return static_cast<const volatile char*>(data_)[page * kPage]; }
  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  const TestDirectory directory_;
  const std::string path_;
  const size_t bytes_;
  void* data_;
};

TEST(SigbusGuardTest, LostPagesAreZerosAndPoison) {
  MappedFile file(8), other(8);
  const SigbusGuard guard(file.data(), file.bytes()), other_guard(other.data(), other.bytes());
  EXPECT_EQ(file.Read(7), 'x');
  EXPECT_FALSE(guard.poisoned());
  file.Truncate(4);
  EXPECT_EQ(file.Read(3), 'x');
  EXPECT_FALSE(guard.poisoned());
  EXPECT_EQ(file.Read(4), '\0');
  EXPECT_TRUE(guard.poisoned());
  for (size_t page = 0; page < 8; ++page) EXPECT_EQ(file.Read(page), '\0') << page;
  EXPECT_FALSE(other_guard.poisoned());
  EXPECT_EQ(other.Read(0), 'x');
}

TEST(SigbusGuardTest, ThreadsThatReadTogether) {
  for (int round = 0; round < 50; ++round) {
    MappedFile file(16);
    const auto guard = std::make_unique<SigbusGuard>(file.data(), file.bytes());
    file.Truncate(0);
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        for (size_t page = 0; page < 16; ++page) EXPECT_EQ(file.Read(page), '\0');
        EXPECT_TRUE(guard->poisoned());
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
}

// Ends with SIGBUS itself, or with the report of a sanitizer that had a handler before.
bool EndedBySigbus(int status) { return WIFSIGNALED(status) ? WTERMSIG(status) == SIGBUS : WEXITSTATUS(status) != 0; }

TEST(SigbusGuardDeathTest, OutsideOfARangeItStillKills) {
  testing::GTEST_FLAG(death_test_style) = "threadsafe";
  MappedFile guarded(2), file(2);
  const SigbusGuard guard(guarded.data(), guarded.bytes());
  EXPECT_EXIT(
      {
        file.Truncate(0);
        file.Read(0);
        ::_exit(0);
      },
      EndedBySigbus, "");
}

TEST(SigbusGuardDeathTest, AGuardThatIsGoneGuardsNothing) {
  testing::GTEST_FLAG(death_test_style) = "threadsafe";
  MappedFile file(2);
  { const SigbusGuard guard(file.data(), file.bytes()); }
  EXPECT_EXIT(
      {
        file.Truncate(0);
        file.Read(0);
        ::_exit(0);
      },
      EndedBySigbus, "");
}

TEST(SigbusGuardDeathTest, ASignalThatWasSentStillKills) {
  testing::GTEST_FLAG(death_test_style) = "threadsafe";
  MappedFile file(2);
  const SigbusGuard guard(file.data(), file.bytes());
  EXPECT_EXIT(
      {
        ::kill(::getpid(), SIGBUS);
        ::_exit(0);
      },
      EndedBySigbus, "");
}

}  // namespace
}  // namespace hilomoe
