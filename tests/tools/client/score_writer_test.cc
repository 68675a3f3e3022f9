#include "tools/client/score_writer.h"

#include <cstdlib>
#include <filesystem>
#include <random>

#include "absl/strings/numbers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tools/common/log_reader.h"

namespace hilomoe {
namespace {

std::string PathOf(const std::string& name) { return ::testing::TempDir() + "/score_writer_" + name; }

std::string Cell(std::string_view cell) {
  std::string kept;
  ScoreWriter::AppendCell(cell, &kept);
  return kept;
}

TEST(ScoreWriterTest, QuotesWhatNeedsIt) {
  EXPECT_EQ(Cell("plain^cell"), "plain^cell,");
  EXPECT_EQ(Cell(""), ",");
  EXPECT_EQ(Cell("Bonn, Germany"), "\"Bonn, Germany\",");
  EXPECT_EQ(Cell("2\" nail"), "\"2\"\" nail\",");
  EXPECT_EQ(Cell("two\nlines"), "\"two\nlines\",");
  EXPECT_EQ(Cell("cr\r"), "\"cr\r\",");
}

// Whatever the compression, a log reader finds the kept cells and the scores to the bit.
TEST(ScoreWriterTest, ReadsBackAsWritten) {
  for (const std::string name : {"plain.csv", "gzip.csv.gz", "zstd.csv.zst"}) {
    SCOPED_TRACE(name);
    const std::string path = PathOf(name);
    std::mt19937 random(1);
    std::uniform_real_distribution<float> uniform(0, 1);
    std::vector<float> scores = {0.0f, 1.0f, 1e-30f, 0x1p-149f, 0x1.fffffep-1f};
    for (int i = 0; i < 1000; ++i) scores.push_back(uniform(random));

    auto writer = ScoreWriter::Create(path, {"id", "odd,name"});
    ASSERT_TRUE(writer.ok()) << writer.status();
    for (const float score : scores) {
      ASSERT_TRUE((*writer)->Append(Cell("a") + Cell("b\"c,d"), score).ok());
    }
    EXPECT_FALSE(std::filesystem::exists(path));
    ASSERT_TRUE((*writer)->Commit().ok());

    auto reader = LogReader::Open(path);
    ASSERT_TRUE(reader.ok()) << reader.status();
    EXPECT_THAT(reader->header(), ::testing::ElementsAre("id", "odd,name", "score"));
    LogReader::Row row;
    for (const float score : scores) {
      const auto more = reader->Next(&row);
      ASSERT_TRUE(more.ok() && *more);
      EXPECT_EQ(row[0], "a");
      EXPECT_EQ(row[1], "b\"c,d");
      EXPECT_EQ(std::strtof(std::string(row[2]).c_str(), nullptr), score) << row[2];
    }
    EXPECT_FALSE(*reader->Next(&row));
    std::filesystem::remove(path);
  }
}

TEST(ScoreWriterTest, SaysWhatCannotBeWritten) {
  const auto nowhere = ScoreWriter::Create(PathOf("none/scores.csv"), {});
  ASSERT_FALSE(nowhere.ok());
  EXPECT_THAT(std::string(nowhere.status().message()), ::testing::HasSubstr("none/scores.csv"));

  auto full = ScoreWriter::Create("/dev/full", {});
  ASSERT_TRUE(full.ok()) << full.status();
  const absl::Status status = (*full)->Commit();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("/dev/full"));
}

}  // namespace
}  // namespace hilomoe
