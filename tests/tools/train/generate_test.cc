#include "tools/train/generate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <xxhash.h>

#include <array>
#include <cmath>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tools/common/log_reader.h"

namespace hilomoe {
namespace {

using ::testing::HasSubstr;

constexpr std::array<const char*, 3> kNames = {"train", "valid", "test"};

std::string Slurp(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

struct Row {
  bool click;
  int64_t request;
  std::string user;
  std::vector<std::string> cells;
};

class GenerateTest : public ::testing::Test {
 protected:
  GenerateTest() {
    std::string name = (std::filesystem::temp_directory_path() / "generate_test.XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
  }
  ~GenerateTest() override { std::filesystem::remove_all(folder_); }

  GenerateOptions Options(int64_t rows) const {
    GenerateOptions options;
    options.output_dir = folder_ + "/log";
    options.compression = Compression::kNone;
    options.rows = rows;
    return options;
  }
  static GenerateReport Generate(const GenerateOptions& options) {
    GenerateReport report;
    const absl::Status status = GenerateLog(options, &report);
    EXPECT_TRUE(status.ok()) << status;
    return report;
  }
  static std::vector<Row> ReadSplit(const std::string& path) {
    std::vector<Row> rows;
    absl::StatusOr<LogReader> reader = LogReader::Open(path);
    EXPECT_TRUE(reader.ok()) << reader.status();
    const int label = *reader->ColumnIndex("label");
    const int request = *reader->ColumnIndex("request_id");
    const int user = *reader->ColumnIndex("user_id");
    LogReader::Row cells;
    while (*reader->Next(&cells)) {
      rows.push_back(
          {cells[label] == "1", *ParseInt64(cells[request]), std::string(cells[user]), {cells.begin(), cells.end()}});
    }
    return rows;
  }

  std::string folder_;
};

enum Column { kHour = 3, kWeekday, kDevice, kCountry, kAccountDays, kHistory, kItem, kTopic, kPrice, kPosition };

// These bytes were written on x86-64; they must not depend on the machine, the compiler or the standard library. A
// change of the generator that means to change them changes the number here.
TEST_F(GenerateTest, GivesTheSameBytesOnEveryMachine) {
  Generate(Options(5000));
  std::string bytes;
  for (const char* name : kNames) bytes += Slurp(folder_ + "/log/" + name + ".csv");
  EXPECT_EQ(XXH3_64bits(bytes.data(), bytes.size()), 6244837958772146334u);
}

TEST_F(GenerateTest, FollowsTheSeedAlone) {
  GenerateOptions options = Options(3000);
  Generate(options);
  const std::string first = Slurp(folder_ + "/log/train.csv");
  options.output_dir = folder_ + "/again";
  Generate(options);
  EXPECT_EQ(Slurp(folder_ + "/again/train.csv"), first);
  EXPECT_EQ(Slurp(folder_ + "/again/ceiling.json"), Slurp(folder_ + "/log/ceiling.json"));
  options.seed = 2;
  Generate(options);
  EXPECT_NE(Slurp(folder_ + "/again/train.csv"), first);
}

TEST_F(GenerateTest, CompressesTheSameLog) {
  GenerateOptions options = Options(3000);
  const GenerateReport plain = Generate(options);
  for (const Compression compression : {Compression::kGzip, Compression::kZstd}) {
    options.compression = compression;
    const GenerateReport report = Generate(options);
    for (size_t i = 0; i < kNames.size(); ++i) {
      EXPECT_EQ(report.splits[i].path, plain.splits[i].path + std::string(FileSuffix(compression)));
      const std::vector<Row> rows = ReadSplit(report.splits[i].path);
      const std::vector<Row> expected = ReadSplit(plain.splits[i].path);
      ASSERT_EQ(rows.size(), expected.size());
      for (size_t r = 0; r < rows.size(); ++r) ASSERT_EQ(rows[r].cells, expected[r].cells);
      EXPECT_LT(std::filesystem::file_size(report.splits[i].path),
                std::filesystem::file_size(plain.splits[i].path) / 2);
    }
  }
}

// Replays the log: what a request shows of a user is what the rows before it tell, through all three files.
TEST_F(GenerateTest, TellsAConsistentStory) {
  GenerateOptions options = Options(40'000);
  options.users = 100;
  options.history_length = 7;
  const GenerateReport report = Generate(options);
  std::map<std::string, std::deque<std::string>> clicks;
  std::unordered_map<std::string, std::string> topics;
  int64_t last_request = 0;
  int64_t total = 0;
  for (size_t s = 0; s < kNames.size(); ++s) {
    const GenerateReport::Split& split = report.splits[s];
    const std::vector<Row> rows = ReadSplit(split.path);
    EXPECT_EQ(split.name, kNames[s]);
    EXPECT_EQ(static_cast<int64_t>(rows.size()), split.rows);
    total += split.rows;
    int64_t requests = 0;
    int64_t split_clicks = 0;
    for (size_t begin = 0; begin < rows.size();) {
      const Row& first = rows[begin];
      ASSERT_EQ(first.request, last_request + 1) << "in order, and none in two files";
      last_request = first.request;
      ++requests;
      std::string history;
      for (const std::string& item : clicks[first.user]) history += (history.empty() ? "" : "^") + item;
      ASSERT_EQ(first.cells[kHistory], history) << "request " << first.request;

      size_t end = begin;
      std::set<std::string> items;
      std::vector<std::string> clicked;
      for (; end < rows.size() && rows[end].request == first.request; ++end) {
        const Row& row = rows[end];
        for (int column = 2; column <= kHistory; ++column) ASSERT_EQ(row.cells[column], first.cells[column]);
        ASSERT_TRUE(items.insert(row.cells[kItem]).second) << "an item twice in a request";
        ASSERT_EQ(row.cells[kPosition], std::to_string(end - begin + 1));
        const auto [topic, unseen] = topics.emplace(row.cells[kItem], row.cells[kTopic]);
        ASSERT_EQ(topic->second, row.cells[kTopic]);
        ASSERT_GT(*ParseFloat(row.cells[kPrice]), 0);
        if (row.click) clicked.push_back(row.cells[kItem]);
      }
      const int64_t size = static_cast<int64_t>(end - begin);
      ASSERT_LE(size, options.max_candidates);
      if (total < options.rows || end < rows.size()) {
        ASSERT_GE(size, options.min_candidates);
      }
      for (const std::string& item : clicked) {
        clicks[first.user].push_back(item);
        if (clicks[first.user].size() > 7) clicks[first.user].pop_front();
      }
      split_clicks += static_cast<int64_t>(clicked.size());
      begin = end;
    }
    EXPECT_EQ(requests, split.requests);
    EXPECT_EQ(split_clicks, split.clicks);
  }
  EXPECT_EQ(total, options.rows);
  // A split ends with the request that crosses its end.
  EXPECT_NEAR(static_cast<double>(report.splits[0].rows), 32'000, 20);
  EXPECT_NEAR(static_cast<double>(report.splits[1].rows), 4'000, 20);
}

// The area under the curve of test rows by their column's click rates in train: what one column tells.
double ColumnAuc(const std::vector<Row>& train, const std::vector<Row>& test,
                 const std::function<std::string(const Row&)>& key) {
  std::unordered_map<std::string, std::array<double, 2>> counts;
  double clicks = 0;
  for (const Row& row : train) {
    counts[key(row)][row.click ? 1 : 0] += 1;
    clicks += row.click ? 1 : 0;
  }
  const double prior = clicks / static_cast<double>(train.size());
  std::vector<float> score;
  std::vector<uint8_t> label;
  for (const Row& row : test) {
    const auto found = counts.find(key(row));
    const std::array<double, 2> count = found != counts.end() ? found->second : std::array<double, 2>{};
    score.push_back(static_cast<float>((count[1] + 10 * prior) / (count[0] + count[1] + 10)));
    label.push_back(row.click ? 1 : 0);
  }
  return **ComputeAuc(score, label);
}

TEST_F(GenerateTest, HidesTheSignalInInteractions) {
  const GenerateReport report = Generate(Options(300'000));
  const BinaryMetrics& ceiling = report.splits[2].ceiling;
  const std::vector<Row> train = ReadSplit(report.splits[0].path);
  const std::vector<Row> test = ReadSplit(report.splits[2].path);
  const double rate = static_cast<double>(report.splits[2].clicks) / static_cast<double>(report.splits[2].rows);
  EXPECT_GT(rate, 0.2);
  EXPECT_LT(rate, 0.3);
  EXPECT_GT(*ceiling.auc, 0.80);
  EXPECT_LT(*ceiling.auc, 0.88);
  EXPECT_LT(*ceiling.normalised_entropy, 0.8);
  // 1 of 2 requests has both classes at the least, else gAUC would say nothing.
  EXPECT_GT(ceiling.grouped.counted_groups, ceiling.grouped.groups / 2);

  // No column alone comes near.
  const std::vector<std::string> names = {"label",  "request_id", "user_id",      "hour",       "weekday",
                                          "device", "country",    "account_days", "hist_items", "item_id",
                                          "topic",  "price",      "position"};
  for (int column = 2; column <= kPosition; ++column) {
    const double auc = ColumnAuc(train, test, [&](const Row& row) { return row.cells[column]; });
    EXPECT_LT(auc, *ceiling.auc - 0.2) << names[column];
  }
  // A pair of them tells more than both: the user's liking for a topic.
  const double user = ColumnAuc(train, test, [](const Row& row) { return row.user; });
  const double topic = ColumnAuc(train, test, [](const Row& row) { return row.cells[kTopic]; });
  const double both = ColumnAuc(train, test, [](const Row& row) { return row.user + row.cells[kTopic]; });
  EXPECT_GT(both, std::max(user, topic) + 0.05);
  EXPECT_LT(both, *ceiling.auc - 0.05);
}

// Labels are drawn with the probabilities that the ceiling is measured with. In a bin of n_b rows the difference of
// labels and probabilities has a standard deviation of at most sqrt(n_b) / 2; summed over 15 bins (Cauchy and Schwarz)
// its mean absolute value is at most sqrt(15 n) / 2, and the sum's own deviation at most sqrt(n) / 2. Five of those:
// one in a million.
TEST_F(GenerateTest, DrawsClicksWithTheProbabilitiesItTells) {
  const GenerateReport report = Generate(Options(300'000));
  for (const GenerateReport::Split& split : report.splits) {
    const double n = static_cast<double>(split.rows);
    EXPECT_LT(*split.ceiling.ece, (std::sqrt(15 * n) / 2 + 5 * std::sqrt(n) / 2) / n) << split.name;
    const double rate = static_cast<double>(split.clicks) / n;
    EXPECT_NEAR(rate, split.ceiling.mean_probability, 5 * 0.5 / std::sqrt(n)) << split.name;
  }
}

TEST_F(GenerateTest, WritesTheCeilings) {
  const GenerateReport report = Generate(Options(3000));
  const nlohmann::json root = nlohmann::json::parse(Slurp(folder_ + "/log/ceiling.json"));
  EXPECT_EQ(root["seed"], 1);
  for (const GenerateReport::Split& split : report.splits) {
    const nlohmann::json& part = root[split.name];
    EXPECT_EQ(part["file"], split.name + ".csv");
    EXPECT_EQ(part["rows"], split.rows);
    EXPECT_EQ(part["clicks"], split.clicks);
    EXPECT_EQ(part["auc"], *split.ceiling.auc);
    EXPECT_EQ(part["gauc"], *split.ceiling.grouped.gauc);
    EXPECT_EQ(part["logloss"], *split.ceiling.logloss);
  }
}

TEST_F(GenerateTest, RefusesOptionsByName) {
  const struct {
    const char* name;
    std::function<void(GenerateOptions&)> spoil;
  } kCases[] = {
      {"rows", [](GenerateOptions& o) { o.rows = 399; }},
      {"users", [](GenerateOptions& o) { o.users = 0; }},
      {"items", [](GenerateOptions& o) { o.items = 19; }},
      {"topics", [](GenerateOptions& o) { o.topics = 2; }},
      {"min_candidates", [](GenerateOptions& o) { o.min_candidates = 21; }},
      {"max_candidates", [](GenerateOptions& o) { o.max_candidates = -1; }},
      {"history_length", [](GenerateOptions& o) { o.history_length = -1; }},
      {"days", [](GenerateOptions& o) { o.days = 0; }},
      {"ceiling_rows", [](GenerateOptions& o) { o.ceiling_rows = -1; }},
      {"output_dir", [](GenerateOptions& o) { o.output_dir = ""; }},
  };
  for (const auto& test : kCases) {
    GenerateOptions options = Options(3000);
    test.spoil(options);
    GenerateReport report;
    const absl::Status status = GenerateLog(options, &report);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << test.name;
    EXPECT_TRUE(std::string(status.message()).starts_with(std::string(test.name) + " is ")) << status;
  }
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/log"));
}

TEST_F(GenerateTest, WorksAtTheLeastOfEverything) {
  GenerateOptions options = Options(400);
  options.users = 1;
  options.items = 20;
  options.topics = 3;
  options.min_candidates = 20;
  options.history_length = 0;
  options.days = 1;
  options.ceiling_rows = 0;
  const GenerateReport report = Generate(options);
  EXPECT_EQ(report.splits[2].rows, 40);
  EXPECT_EQ(report.splits[2].ceiling.auc, std::nullopt);
  EXPECT_EQ(ReadSplit(report.splits[0].path)[5].cells[kHistory], "");
  EXPECT_TRUE(nlohmann::json::parse(Slurp(folder_ + "/log/ceiling.json"))["test"]["auc"].is_null());
}

TEST_F(GenerateTest, LeavesNothingBehindWhenTheDiskIsFull) {
  for (const char* full : {"train.csv", "valid.csv", "test.csv", "ceiling.json"}) {
    // The larger log fails while it is written, the smaller one when its buffer is flushed at the end.
    for (const int64_t rows : {3'000, 100'000}) {
      GenerateOptions options = Options(rows);
      options.output_dir = folder_ + "/" + full + std::to_string(rows);
      std::filesystem::create_directories(options.output_dir);
      std::filesystem::create_symlink("/dev/full", options.output_dir + "/" + full);
      GenerateReport report;
      const absl::Status status = GenerateLog(options, &report);
      EXPECT_THAT(std::string(status.message()), HasSubstr(full));
      EXPECT_THAT(std::string(status.message()), HasSubstr("No space left on device"));
      std::filesystem::remove(options.output_dir + "/" + full);
      EXPECT_TRUE(std::filesystem::is_empty(options.output_dir)) << full;
    }
  }
}

TEST_F(GenerateTest, NamesADirectoryThatItCannotCreate) {
  GenerateOptions options = Options(3000);
  std::ofstream(folder_ + "/file") << "x";
  options.output_dir = folder_ + "/file/log";
  GenerateReport report;
  EXPECT_THAT(std::string(GenerateLog(options, &report).message()), HasSubstr(options.output_dir));
}

}  // namespace
}  // namespace hilomoe
