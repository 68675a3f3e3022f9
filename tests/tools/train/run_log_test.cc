#include "tools/train/run_log.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/model/test_files.h"

namespace hilomoe {
namespace {

using testing::HasSubstr;

TEST(RunLogTest, GoesOnBehindTheMark) {
  const TestDirectory directory;
  const std::string path = directory / "metrics.jsonl";
  RunLogMark mark;
  {
    absl::StatusOr<RunLog> log = RunLog::Create(path);
    ASSERT_TRUE(log.ok()) << log.status();
    EXPECT_TRUE(log->empty());
    ASSERT_TRUE(log->Append({{"event", "run"}}).ok());
    EXPECT_EQ(ReadBytes(path), "{\"event\":\"run\"}\n") << "a line must not wait in memory";
    ASSERT_TRUE(log->Append({{"step", 1}}).ok());
    mark = *log->Sync();
    ASSERT_TRUE(log->Append({{"step", 2}}).ok());
  }
  // Killed while a line was being written: steps 2 and 3 will be repeated.
  WriteBytes(path, ReadBytes(path) + "{\"step\": 3, \"lo");
  {
    absl::StatusOr<RunLog> log = RunLog::Resume(path, mark);
    ASSERT_TRUE(log.ok()) << log.status();
    EXPECT_FALSE(log->empty());
    ASSERT_TRUE(log->Append({{"step", 2}}).ok());
    mark = *log->Sync();
  }
  const std::string expected = "{\"event\":\"run\"}\n{\"step\":1}\n{\"step\":2}\n";
  EXPECT_EQ(ReadBytes(path), expected);
  // The mark of a resumed log is one of the whole file.
  ASSERT_FALSE(RunLog::Resume(path, mark)->empty());
  EXPECT_EQ(ReadBytes(path), expected);
}

TEST(RunLogTest, BeginsAnewWhenTheFileIsNotTheMarkedOne) {
  const TestDirectory directory;
  const std::string path = directory / "metrics.jsonl";
  RunLog log = *RunLog::Create(path);
  ASSERT_TRUE(log.Append({{"step", 1}}).ok());
  const RunLogMark mark = *log.Sync();
  for (const std::string other : {"", "{\"step\":", "{\"step\":2}\n", "{\"step\":2}\n{\"step\":3}\n"}) {
    WriteBytes(path, other);
    EXPECT_TRUE(RunLog::Resume(path, mark)->empty()) << other;
    EXPECT_EQ(ReadBytes(path), "");
  }
  std::filesystem::remove(path);
  EXPECT_TRUE(RunLog::Resume(path, mark)->empty());
}

TEST(RunLogTest, ReplacesBytesThatAreNoUtf8) {
  const TestDirectory directory;
  const std::string path = directory / "metrics.jsonl";
  RunLog log = *RunLog::Create(path);
  ASSERT_TRUE(log.Append({{"value", "a\xFF\n"}}).ok());
  EXPECT_EQ(ReadBytes(path), "{\"value\":\"a\uFFFD\\n\"}\n");
}

TEST(RunLogTest, NamesTheFileThatCannotBeWritten) {
  const TestDirectory directory;
  const absl::Status status = RunLog::Create(directory / "none/metrics.jsonl").status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("none/metrics.jsonl"));
  RunLog full = *RunLog::Create("/dev/full");
  EXPECT_THAT(std::string(full.Append({{"step", 1}}).message()), HasSubstr("/dev/full"));
}

}  // namespace
}  // namespace hilomoe
