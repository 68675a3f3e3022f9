#include "tools/train/slices.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/model/test_files.h"
#include "tools/common/metrics.h"

namespace hilomoe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(SlicesTest, ReadsColumnsOfSeveralLogsInOrder) {
  const TestDirectory directory;
  WriteBytes(directory / "a.csv", "label,country,device\n1,de,phone\n0,,tv\n");
  WriteBytes(directory / "b.csv", "device,country,label\ntv,\"a,b\",0\nphone,de,1\n");
  const std::vector<std::string> paths = {directory / "a.csv", directory / "b.csv"};
  ASSERT_TRUE(CheckSliceColumns(paths, {"country"}).ok());
  const auto columns = ReadSliceColumns(paths, {"country", "device"});
  ASSERT_TRUE(columns.ok()) << columns.status();
  EXPECT_THAT((*columns)[0].values, ElementsAre("de", "", "a,b"));
  EXPECT_THAT((*columns)[0].rows, ElementsAre(0, 1, 2, 0));
  EXPECT_THAT((*columns)[1].values, ElementsAre("phone", "tv"));
  EXPECT_THAT((*columns)[1].rows, ElementsAre(0, 1, 1, 0));
  EXPECT_THAT(std::string(CheckSliceColumns(paths, {"weather"}).message()), HasSubstr("a.csv"));
  EXPECT_TRUE(ReadSliceColumns(paths, {})->empty());
}

TEST(SlicesTest, LargestValuesStandAloneAndTheRestIsPooled) {
  // Value i has 30 - i rows, i = 0..24; written backwards, so that the order is that of the rows, not of appearance.
  SliceColumn column{"c", {}, {}};
  std::vector<float> probability;
  std::vector<uint8_t> label;
  for (int i = 24; i >= 0; --i) {
    column.values.push_back(absl::StrCat("v", i));
    for (int r = 0; r < 30 - i; ++r) {
      column.rows.push_back(static_cast<uint32_t>(column.values.size() - 1));
      probability.push_back(static_cast<float>(r * 7 % 30) / 30);
      label.push_back((r * 11 + i) % 3 == 0 ? 1 : 0);
    }
  }
  const auto json = SliceJson(column, probability, label, {});
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_EQ(json->at("column"), "c");
  EXPECT_EQ(json->at("distinct"), 25);
  ASSERT_EQ(json->at("values").size(), kSliceValues);
  int64_t rows = json->at("rest").at("rows").get<int64_t>();
  EXPECT_EQ(rows, 10 + 9 + 8 + 7 + 6);
  for (size_t i = 0; i < kSliceValues; ++i) {
    const auto& value = json->at("values").at(i);
    EXPECT_EQ(value.at("value"), absl::StrCat("v", i));
    EXPECT_EQ(value.at("metrics").at("rows"), 30 - static_cast<int>(i));
    rows += value.at("metrics").at("rows").get<int64_t>();
  }
  EXPECT_EQ(rows, static_cast<int64_t>(probability.size()));
  // One of them, gathered here.
  std::vector<float> p;
  std::vector<uint8_t> y;
  for (size_t r = 0; r < probability.size(); ++r) {
    if (column.values[column.rows[r]] != "v3") continue;
    p.push_back(probability[r]);
    y.push_back(label[r]);
  }
  const auto& metrics = json->at("values").at(3).at("metrics");
  EXPECT_EQ(metrics.at("auc"), *ComputeMetrics(p, y)->auc);
  EXPECT_EQ(metrics.at("logloss"), *ComputeMetrics(p, y)->logloss);
  EXPECT_TRUE(metrics.at("gauc").is_null());
}

TEST(SlicesTest, KeepGroupsAndRefuseAnotherNumberOfRows) {
  const SliceColumn column{"c", {"a", "b"}, {0, 0, 1, 1}};
  const std::vector<float> probability = {0.1F, 0.2F, 0.3F, 0.4F};
  const std::vector<uint8_t> label = {0, 1, 1, 0};
  const std::vector<uint64_t> group = {7, 7, 8, 8};
  const auto json = SliceJson(column, probability, label, group);
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_EQ(json->at("values").at(0).at("metrics").at("gauc"), 1);
  EXPECT_EQ(json->at("values").at(1).at("metrics").at("gauc"), 0);
  EXPECT_TRUE(json->at("rest").is_null());
  EXPECT_FALSE(SliceJson(column, std::vector<float>{0.5F}, std::vector<uint8_t>{1}, {}).ok());
}

}  // namespace
}  // namespace hilomoe
