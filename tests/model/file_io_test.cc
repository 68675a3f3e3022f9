// Files that are wholly there or not at all.
#include "model/file_io.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/model/test_files.h"

namespace hilomoe {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;
using testing::UnorderedElementsAreArray;

TEST(AtomicFileTest, AppearsWithCommit) {
  const TestDirectory directory;
  const std::string path = directory / "a";
  auto file = AtomicFile::Create(path);
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_TRUE(file->Append("one ").ok());
  ASSERT_TRUE(file->Append("two").ok());
  EXPECT_EQ(file->size(), 7);
  EXPECT_FALSE(fs::exists(path));
  ASSERT_TRUE(file->Commit().ok());
  EXPECT_EQ(ReadBytes(path), "one two");
  EXPECT_THAT(directory.Names(), ElementsAre("a"));
}

TEST(AtomicFileTest, LeavesTheOldFileUntilCommit) {
  const TestDirectory directory;
  const std::string path = directory / "a";
  WriteBytes(path, "old");
  auto file = AtomicFile::Create(path);
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE(file->Append(std::string(3 << 20, 'n')).ok());  // more than is held back in memory
  EXPECT_EQ(ReadBytes(path), "old");
  ASSERT_TRUE(file->Commit().ok());
  EXPECT_EQ(fs::file_size(path), 3 << 20);
}

TEST(AtomicFileTest, TheDestructorRemovesWhatWasNotCommitted) {
  const TestDirectory directory;
  {
    auto file = AtomicFile::Create(directory / "a");
    ASSERT_TRUE(file.ok());
    ASSERT_TRUE(file->Append(std::string(2 << 20, 'x')).ok());
    AtomicFile moved = std::move(*file);
    EXPECT_EQ(moved.size(), 2 << 20);
    EXPECT_EQ(directory.Names().size(), 1);
  }
  EXPECT_THAT(directory.Names(), IsEmpty());
}

// Pieces around the buffer's size, against their concatenation.
TEST(AtomicFileTest, KeepsTheOrderOfPiecesOfAnySize) {
  const TestDirectory directory;
  std::string expected;
  auto file = AtomicFile::Create(directory / "a");
  ASSERT_TRUE(file.ok());
  for (const size_t size : {0, 1, (1 << 20) - 1, 1, 1 << 20, 3, (1 << 20) + 1, 5, 0, 1 << 19, 1 << 19, 7}) {
    const std::string piece(size, static_cast<char>('a' + expected.size() % 23));
    ASSERT_TRUE(file->Append(piece).ok());
    expected += piece;
    ASSERT_EQ(file->size(), expected.size());
  }
  ASSERT_TRUE(file->Commit().ok());
  EXPECT_TRUE(ReadBytes(directory / "a") == expected);
}

TEST(AtomicFileTest, WritesToADeviceDirectly) {
  EXPECT_TRUE(WriteFile("/dev/null", "x").ok());
  struct stat info;
  ASSERT_EQ(::stat("/dev/null", &info), 0);
  EXPECT_TRUE(S_ISCHR(info.st_mode));
  const absl::Status full = WriteFile("/dev/full", "x");
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted) << full;
  EXPECT_THAT(std::string(full.message()), HasSubstr("'/dev/full'"));
  const absl::Status more = WriteFile("/dev/full", std::string(3 << 20, 'x'));
  EXPECT_EQ(more.code(), absl::StatusCode::kResourceExhausted) << more;
}

TEST(AtomicFileTest, FollowsALinkInsteadOfReplacingIt) {
  const std::string target = testing::TempDir() + "link_target", link = testing::TempDir() + "link";
  std::remove(link.c_str());
  ASSERT_TRUE(WriteFile(target, "old").ok());
  ASSERT_EQ(::symlink(target.c_str(), link.c_str()), 0);
  ASSERT_TRUE(WriteFile(link, "new").ok());
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  EXPECT_EQ(*ReadFile(target), "new");
}

TEST(AtomicFileTest, AnOpenFileOfAnotherKeepsWhatItHolds) {
  const std::string path = testing::TempDir() + "redirected";
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(::write(fd, "before ", 7), 7);
  ASSERT_TRUE(WriteFile("/dev/fd/" + std::to_string(fd), "after").ok());
  ::close(fd);
  EXPECT_EQ(*ReadFile(path), "before after");
}

TEST(AtomicFileTest, NamesWhatCannotBeCreated) {
  const TestDirectory directory;
  const auto missing = AtomicFile::Create(directory / "no/a");
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr(directory / "no/a"));
  EXPECT_FALSE(AtomicFile::Create(directory.path()).ok());
  WriteBytes(directory / "file", "");
  EXPECT_FALSE(AtomicFile::Create(directory / "file/a").ok());
}

// Whatever fails between Create and Commit, nothing appears, and Commit says so even when Append's error was not heard.
void ExpectNothingAppears(const TestDirectory& directory, size_t bytes) {
  {
    auto file = AtomicFile::Create(directory / "a");
    ASSERT_TRUE(file.ok()) << file.status();
    absl::Status first;
    for (size_t done = 0; done < bytes; done += 100'000) {
      const absl::Status status = file->Append(std::string(100'000, 'x'));
      if (first.ok()) first = status;
    }
    const absl::Status commit = file->Commit();
    EXPECT_FALSE(commit.ok());
    EXPECT_THAT(std::string(commit.message()), HasSubstr(directory / "a"));
    if (!first.ok()) {
      EXPECT_EQ(commit, first);
    }
  }
  EXPECT_THAT(directory.Names(), IsEmpty());
}

TEST(AtomicFileTest, NothingAppearsAfterAFailedWrite) {
  rlimit old;
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old), 0);
  const auto handler = ::signal(SIGXFSZ, SIG_IGN);
  const rlimit small = {50'000, old.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  {
    const TestDirectory directory;
    ExpectNothingAppears(directory, 100'000);    // fails in Commit
    ExpectNothingAppears(directory, 5'000'000);  // in Append
    // The part that failed is the first; what comes later would fit and must not be committed without it.
    auto file = AtomicFile::Create(directory / "a");
    ASSERT_TRUE(file.ok());
    EXPECT_FALSE(file->Append(std::string(2 << 20, 'x')).ok());
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &old), 0);
    EXPECT_TRUE(!file->Append("y").ok() || !file->Commit().ok());
    EXPECT_FALSE(file->Commit().ok());
    EXPECT_FALSE(fs::exists(directory / "a"));
  }
  ::setrlimit(RLIMIT_FSIZE, &old);
  ::signal(SIGXFSZ, handler);
}

TEST(AtomicFileTest, NothingAppearsOnAFullDisk) {
  const TestDirectory directory;
  if (::mount("tmpfs", directory.path().c_str(), "tmpfs", 0, "size=256k") != 0) {
    GTEST_SKIP() << "a small file system cannot be mounted here: " << std::strerror(errno);
  }
  ExpectNothingAppears(directory, 500'000);
  ExpectNothingAppears(directory, 5'000'000);
  EXPECT_EQ(::umount(directory.path().c_str()), 0);
}

TEST(AtomicFileTest, AReadOnlyDirectoryIsRefused) {
  const TestDirectory directory;
  ASSERT_EQ(::chmod(directory.path().c_str(), 0555), 0);
  const bool root = ::geteuid() == 0;
  if (root && ::seteuid(65534) != 0) GTEST_SKIP() << "root may write everywhere and cannot become another user";
  const auto file = AtomicFile::Create(directory / "a");
  const auto staged = AtomicDirectory::Create(directory / "d");
  if (root) {
    ASSERT_EQ(::seteuid(0), 0);
  }
  ::chmod(directory.path().c_str(), 0755);
  EXPECT_EQ(file.status().code(), absl::StatusCode::kPermissionDenied) << file.status();
  EXPECT_EQ(staged.status().code(), absl::StatusCode::kPermissionDenied) << staged.status();
  EXPECT_THAT(directory.Names(), IsEmpty());
}

TEST(AtomicDirectoryTest, AppearsWithCommit) {
  const TestDirectory directory;
  auto staged = AtomicDirectory::Create(directory / "out/d//");
  ASSERT_TRUE(staged.ok()) << staged.status();
  ASSERT_TRUE(WriteFile(staged->staging_path() + "/f", "1").ok());
  fs::create_directory(staged->staging_path() + "/sub");
  WriteBytes(staged->staging_path() + "/sub/g", "2");
  EXPECT_FALSE(fs::exists(directory / "out/d"));
  ASSERT_TRUE(staged->Commit().ok());
  EXPECT_THAT(directory.Names(), UnorderedElementsAre("out", "out/d", "out/d/f", "out/d/sub", "out/d/sub/g"));
}

TEST(AtomicDirectoryTest, ReplacesAnother) {
  const TestDirectory directory;
  fs::create_directories(directory / "d/old");
  WriteBytes(directory / "d/old/f", "old");
  for (const std::string content : {"first", "second"}) {
    auto staged = AtomicDirectory::Create(directory / "d");
    ASSERT_TRUE(staged.ok());
    WriteBytes(staged->staging_path() + "/f", content);
    ASSERT_TRUE(staged->Commit().ok());
    EXPECT_EQ(ReadBytes(directory / "d/f"), content);
    EXPECT_THAT(directory.Names(), UnorderedElementsAre("d", "d/f"));
  }
}

TEST(AtomicDirectoryTest, TheDestructorRemovesWhatWasNotCommitted) {
  const TestDirectory directory;
  fs::create_directory(directory / "d");
  WriteBytes(directory / "d/f", "old");
  {
    auto staged = AtomicDirectory::Create(directory / "d");
    ASSERT_TRUE(staged.ok());
    WriteBytes(staged->staging_path() + "/f", "new");
    const AtomicDirectory moved = std::move(*staged);
    EXPECT_EQ(ReadBytes(moved.staging_path() + "/f"), "new");
  }
  EXPECT_EQ(ReadBytes(directory / "d/f"), "old");
  EXPECT_THAT(directory.Names(), UnorderedElementsAre("d", "d/f"));
}

TEST(AtomicDirectoryTest, LeftoversOfAnEarlierRunAreNotMixedIn) {
  const TestDirectory directory;
  std::string staging;
  {
    auto probe = AtomicDirectory::Create(directory / "d");
    ASSERT_TRUE(probe.ok());
    staging = probe->staging_path();
  }
  fs::create_directory(staging);
  WriteBytes(staging + "/leftover", "x");
  auto staged = AtomicDirectory::Create(directory / "d");
  ASSERT_TRUE(staged.ok());
  ASSERT_TRUE(staged->Commit().ok());
  EXPECT_THAT(directory.Names(), ElementsAre("d"));
}

TEST(AtomicDirectoryTest, AFileIsNotReplaced) {
  const TestDirectory directory;
  WriteBytes(directory / "d", "file");
  {
    auto staged = AtomicDirectory::Create(directory / "d");
    ASSERT_TRUE(staged.ok());
    WriteBytes(staged->staging_path() + "/f", "new");
    EXPECT_FALSE(staged->Commit().ok());
  }
  EXPECT_EQ(ReadBytes(directory / "d"), "file");
  EXPECT_THAT(directory.Names(), ElementsAre("d"));
}

TEST(LeftoversTest, OnlyThoseOfDeadProcessesGo) {
  const TestDirectory directory;
  const pid_t dead = ::fork();
  if (dead == 0) ::_exit(0);
  ASSERT_EQ(::waitpid(dead, nullptr, 0), dead);
  const std::vector<std::string> kept = {
      "a",
      absl::StrCat("a.tmp.", ::getpid()),
      "a.tmp.1",
      "a.tmp.",
      "a.tmp.0",
      "a.tmp.99999999999999999999",
      absl::StrCat("a.tmp.+", dead),
      absl::StrCat("a.tmp.", dead, ".old"),
      absl::StrCat("aa.tmp.", dead),
      absl::StrCat("b.tmp.", dead),
  };
  for (const std::string& name : kept) WriteBytes(directory / name, "kept");
  fs::create_directory(directory / absl::StrCat("a.tmp.", dead));
  WriteBytes(directory / absl::StrCat("a.tmp.", dead, "/weights"), "half of them");
  RemoveLeftovers(directory / "a");
  EXPECT_THAT(directory.Names(), UnorderedElementsAreArray(kept));
  // A file as well as a directory.
  RemoveLeftovers(directory / "b");
  EXPECT_FALSE(fs::exists(directory / absl::StrCat("b.tmp.", dead)));
  RemoveLeftovers(directory / "none/a");
}

TEST(ReadFileTest, ReturnsEveryByte) {
  const TestDirectory directory;
  const std::string content("a\0b\r\n\xff", 6);
  ASSERT_TRUE(WriteFile(directory / "f", content).ok());
  EXPECT_EQ(*ReadFile(directory / "f"), content);
}

}  // namespace
}  // namespace hilomoe
