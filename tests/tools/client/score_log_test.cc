#include "tools/client/score_log.h"

#include <sys/stat.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/file_io.h"
#include "nlohmann/json.hpp"
#include "tests/tools/client/fake_server.h"

namespace hilomoe {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

class ScoreLogTest : public ::testing::Test {
 protected:
  ScoreLogTest() {
    folder_ = absl::StrCat(::testing::TempDir(), "/score_log_",
                           ::testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  ~ScoreLogTest() override { std::filesystem::remove_all(folder_); }

  std::string Path(const std::string& name) const { return absl::StrCat(folder_, "/", name); }

  ScoreLogOptions Options(const FakeServer& server, const std::string& log) const {
    EXPECT_TRUE(WriteFile(Path("log.csv"), log).ok());
    ScoreLogOptions options;
    options.server.address = server.address();
    options.pipeline.deadline = absl::Seconds(20);
    options.pipeline.first_backoff = absl::Milliseconds(1);
    options.input = Path("log.csv");
    options.output = Path("scores.csv");
    return options;
  }

  ScoreReport Score(const ScoreLogOptions& options) const {
    auto report = ScoreLog(options, nullptr);
    EXPECT_TRUE(report.ok()) << report.status();
    return report.ok() ? *std::move(report) : ScoreReport();
  }

  std::vector<std::string> OutputLines() const {
    const auto text = ReadFile(Path("scores.csv"));
    EXPECT_TRUE(text.ok()) << text.status();
    EXPECT_TRUE(text->ends_with("\n"));
    return absl::StrSplit(absl::string_view(*text).substr(0, text->size() - 1), '\n');
  }

  // Compared as floats, to the bit.
  void ExpectScores(const std::vector<float>& expected) const {
    const std::vector<std::string> lines = OutputLines();
    ASSERT_EQ(lines.size(), expected.size() + 1);
    EXPECT_EQ(lines[0], "score");
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_EQ(std::strtof(lines[i + 1].c_str(), nullptr), expected[i]) << "row " << i + 1;
    }
  }

  std::string folder_;
};

std::vector<uint32_t> Sizes(const FakeServer& server) {
  std::vector<uint32_t> sizes;
  for (const v1::ScoreRequest& request : server.requests()) sizes.push_back(request.num_candidates());
  return sizes;
}

TEST_F(ScoreLogTest, RowsWithoutGroupsAreScoredInOrderAndBounded) {
  FakeServer server([](grpc::ServerContext*, const v1::ScoreRequest& request, v1::ScoreResponse*) {
    if (FirstItem(request) % 97 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(3));
    return grpc::Status::OK;
  });
  std::string log = "user,item,extra\n";
  std::vector<float> expected;
  for (int64_t i = 1; i <= 1000; ++i) {
    absl::StrAppend(&log, i % 10, ",", i, ",x\n");
    expected.push_back(FakeScore(i % 10, i, 0));
  }
  ScoreLogOptions options = Options(server, log);
  options.pipeline.max_in_flight = 5;
  const ScoreReport report = Score(options);
  ExpectScores(expected);
  EXPECT_EQ(report.rows, 1000);
  EXPECT_EQ(report.requests, 1000);
  EXPECT_EQ(report.latency.count(), 1000u);
  EXPECT_EQ(report.retries, 0);
  EXPECT_EQ(report.model, "toy");
  EXPECT_THAT(report.rows_by_version, ElementsAre(std::pair(uint64_t{3}, int64_t{1000})));
  EXPECT_THAT(report.absent_features, ElementsAre("tags"));
  EXPECT_FALSE(report.metrics.has_value());
  EXPECT_THAT(Sizes(server), Each(1u));
  EXPECT_LE(server.most_at_a_time(), 5);
  EXPECT_GE(server.most_at_a_time(), 2);
}

constexpr char kGroups[] =
    "request_id,user,item,tags\n"
    "a,1,10,x\n"
    "a,1,11,\n"
    "a,1,,x^y\n"
    "b,1,12,x\n"  // same context, another group
    "b,2,13,x\n"  // same group, another context
    "b,2,14,x\n"
    "a,2,15,x\n";  // a group that was there before
std::vector<float> GroupScores() {
  return {FakeScore(1, 10, 1), FakeScore(1, 11, 0), FakeScore(1, 0, 2), FakeScore(1, 12, 1),
          FakeScore(2, 13, 1), FakeScore(2, 14, 1), FakeScore(2, 15, 1)};
}

TEST_F(ScoreLogTest, GroupsTravelTogether) {
  FakeServer server;
  ScoreLogOptions options = Options(server, kGroups);
  options.pipeline.max_in_flight = 1;
  const ScoreReport report = Score(options);
  ExpectScores(GroupScores());
  EXPECT_THAT(Sizes(server), ElementsAre(3, 1, 2, 1));
  EXPECT_EQ(report.context_splits, 1);
  EXPECT_EQ(report.requests, 4);
  EXPECT_EQ(report.rows, 7);
}

TEST_F(ScoreLogTest, FlatScoresAreTheSame) {
  FakeServer server;
  ScoreLogOptions options = Options(server, kGroups);
  options.flat = true;
  const ScoreReport report = Score(options);
  ExpectScores(GroupScores());
  EXPECT_THAT(Sizes(server), ElementsAre(1, 1, 1, 1, 1, 1, 1));
  EXPECT_EQ(report.context_splits, 0);
}

TEST_F(ScoreLogTest, LongGroupsAreSplit) {
  FakeServer server;
  ScoreLogOptions options = Options(server, kGroups);
  options.max_candidates = 2;
  options.pipeline.max_in_flight = 1;
  Score(options);
  ExpectScores(GroupScores());
  EXPECT_THAT(Sizes(server), ElementsAre(2, 1, 1, 2, 1));
}

TEST_F(ScoreLogTest, AnotherGroupColumnMayBeNamed) {
  FakeServer server;
  ScoreLogOptions options = Options(server, kGroups);
  options.group_by = "user";
  options.pipeline.max_in_flight = 1;
  Score(options);
  ExpectScores(GroupScores());
  EXPECT_THAT(Sizes(server), ElementsAre(4, 3));
}

TEST_F(ScoreLogTest, ModelAndVersionAreAskedFor) {
  FakeServer server;
  ScoreLogOptions options = Options(server, kGroups);
  options.server.model = "toy";
  options.server.version = 3;
  Score(options);
  for (const v1::ScoreRequest& request : server.requests()) {
    EXPECT_EQ(request.model(), "toy");
    EXPECT_EQ(request.version(), 3u);
  }
}

TEST_F(ScoreLogTest, KeptColumnsStandBeforeTheScore) {
  FakeServer server;
  ScoreLogOptions options = Options(server, "item,city,user\n1,\"Bonn, Germany\",2\n3,,4\n");
  options.keep_columns = {"city", "item"};
  Score(options);
  EXPECT_THAT(OutputLines(), ElementsAre("city,item,score", "\"Bonn, Germany\",1,0.0020001", ",3,0.0040003"));
}

TEST_F(ScoreLogTest, KeptColumnsOfARequestStayWithTheirRows) {
  FakeServer server;
  ScoreLogOptions options = Options(server, "request_id,item\na,1\na,22\na,333\nb,4\n");
  options.keep_columns = {"request_id", "item"};
  EXPECT_EQ(Score(options).requests, 2);
  EXPECT_THAT(OutputLines(),
              ElementsAre("request_id,item,score", "a,1,1e-07", "a,22,2.2e-06", "a,333,3.33e-05", "b,4,4e-07"));
}

TEST_F(ScoreLogTest, LogWithoutRowsGivesAHeader) {
  FakeServer server;
  const ScoreReport report = Score(Options(server, "user,item,label\n"));
  EXPECT_THAT(OutputLines(), ElementsAre("score"));
  EXPECT_EQ(report.requests, 0);
  ASSERT_TRUE(report.metrics.has_value());
  EXPECT_FALSE(report.metrics->auc.has_value());
}

// A pipe that gives its last rows late: those sent before are not lost to their deadline. The reader hands out rows
// when its buffer of 256 KiB is full, so the rows are long.
TEST_F(ScoreLogTest, SlowInputMissesNoDeadline) {
  std::atomic<int64_t> scored = 0;
  FakeServer server([&](grpc::ServerContext*, const v1::ScoreRequest&, v1::ScoreResponse*) {
    ++scored;
    return grpc::Status::OK;
  });
  ScoreLogOptions options = Options(server, "");
  options.input = Path("pipe.csv");
  options.pipeline.deadline = absl::Milliseconds(500);
  ASSERT_EQ(::mkfifo(options.input.c_str(), 0600), 0);
  constexpr int64_t kRows = 200;
  const std::string padding(2000, 'x');
  std::vector<float> expected;
  for (int64_t i = 1; i <= kRows; ++i) expected.push_back(FakeScore(1, i, 0));
  int64_t scored_in_the_pause = 0;
  std::thread writer([&] {
    std::ofstream pipe(options.input);
    pipe << "user,item,padding\n";
    for (int64_t i = 1; i <= kRows; ++i) pipe << "1," << i << "," << padding << "\n";
    pipe.flush();
    std::this_thread::sleep_for(std::chrono::milliseconds(800));
    scored_in_the_pause = scored;
  });
  Score(options);
  writer.join();
  EXPECT_GT(scored_in_the_pause, 0);
  EXPECT_LT(scored_in_the_pause, kRows);
  ExpectScores(expected);
}

TEST_F(ScoreLogTest, BusyServerIsAskedAgain) {
  std::atomic<int> calls = 0;
  FakeServer server([&](grpc::ServerContext*, const v1::ScoreRequest&, v1::ScoreResponse*) {
    return calls++ % 3 == 0 ? grpc::Status(grpc::RESOURCE_EXHAUSTED, "queue full") : grpc::Status::OK;
  });
  std::string log = "user,item\n";
  std::vector<float> expected;
  for (int64_t i = 1; i <= 100; ++i) {
    absl::StrAppend(&log, "1,", i, "\n");
    expected.push_back(FakeScore(1, i, 0));
  }
  ScoreLogOptions options = Options(server, log);
  options.pipeline.retries = 100;
  const ScoreReport report = Score(options);
  ExpectScores(expected);
  EXPECT_EQ(report.requests, 100);
  EXPECT_EQ(report.retries, calls - 100);
  EXPECT_GE(report.retries, 49);  // one call of three is refused
}

TEST_F(ScoreLogTest, ModelsThatChangeAreReported) {
  FakeServer server([&](grpc::ServerContext*, const v1::ScoreRequest& request, v1::ScoreResponse* response) {
    response->set_version(FirstItem(request) < 3 ? 3 : 4);
    return grpc::Status::OK;
  });
  const ScoreReport report = Score(Options(server, "user,item\n1,1\n1,2\n1,3\n"));
  EXPECT_THAT(report.rows_by_version,
              ElementsAre(std::pair(uint64_t{3}, int64_t{2}), std::pair(uint64_t{4}, int64_t{1})));
}

// By hand: group a holds (.2,0) (.4,1) (.3,0) -> both pairs right, AUC 1, weight 3; group b (.5,1) (.7,0) -> 0,
// weight 2. Of all pairs: positives .4 and .5 against .2, .3, .7 -> 4 of 6. The row without a label counts for nothing.
constexpr char kLabelled[] =
    "request_id,item,label\n"
    "a,2000000,0\n"
    "a,4000000,1\n"
    "b,5000000,1.0\n"
    "b,9000000,\n"
    "b,7000000,0\n"
    "a,3000000,0\n";

TEST_F(ScoreLogTest, MetricsAreOfTheLabelledRows) {
  for (const bool flat : {false, true}) {
    FakeServer server;
    ScoreLogOptions options = Options(server, kLabelled);
    options.flat = flat;
    options.report = Path("report.json");
    const ScoreReport report = Score(options);
    ASSERT_TRUE(report.metrics.has_value());
    EXPECT_EQ(report.metrics->rows, 5);
    EXPECT_EQ(report.metrics->positives, 2);
    EXPECT_DOUBLE_EQ(*report.metrics->auc, 4.0 / 6);
    EXPECT_DOUBLE_EQ(*report.metrics->grouped.gauc, 3.0 / 5);
    const double logloss = -(std::log(.8) + std::log(.4) + std::log(.5) + std::log(.3) + std::log(.7)) / 5;
    EXPECT_NEAR(*report.metrics->logloss, logloss, 1e-7);  // the scores are floats

    const auto text = ReadFile(Path("report.json"));
    ASSERT_TRUE(text.ok()) << text.status();
    const nlohmann::json json = nlohmann::json::parse(*text);
    EXPECT_EQ(json["rows"], 6);
    EXPECT_EQ(json["requests"], flat ? 6 : 3);
    EXPECT_DOUBLE_EQ(json["metrics"]["auc"].get<double>(), 4.0 / 6);
    EXPECT_DOUBLE_EQ(json["metrics"]["gauc"].get<double>(), 3.0 / 5);
    EXPECT_EQ(json["rows_by_version"]["3"], 6);
    EXPECT_GT(json["latency_ms"]["p99.9"].get<double>(), 0);
    EXPECT_THAT(report.ToText(), ::testing::HasSubstr("5 labelled rows, 2 positive  AUC 0.666667  gAUC 0.600000"));
  }
}

TEST_F(ScoreLogTest, MetricsCanBeLeftOut) {
  FakeServer server;
  ScoreLogOptions options = Options(server, "item,label\n1,maybe\n");
  options.metrics = false;
  EXPECT_FALSE(Score(options).metrics.has_value());
}

}  // namespace
}  // namespace hilomoe
