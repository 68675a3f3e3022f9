// Whatever goes wrong: one message that says where, and no output under its name or beside it.
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <thread>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/file_io.h"
#include "tests/tools/client/fake_server.h"
#include "tools/client/score_log.h"

namespace hilomoe {
namespace {

using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

class ScoreLogFailureTest : public ::testing::Test {
 protected:
  ScoreLogFailureTest() {
    folder_ = absl::StrCat(::testing::TempDir(), "/score_log_failure_",
                           ::testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  ~ScoreLogFailureTest() override { std::filesystem::remove_all(folder_); }

  // Fails as expected, and leaves the folder with the log and the output of an earlier run as they were.
  void ExpectError(const FakeServer& server, const std::string& log, absl::StatusCode code,
                   const std::string& message) {
    ScoreLogOptions options;
    options.server.address = server.address();
    options.pipeline = pipeline_;
    options.keep_columns = keep_columns_;
    options.group_by = group_by_;
    options.server.model = model_;
    options.input = folder_ + "/log.csv";
    options.output = folder_ + "/scores.csv";
    options.report = folder_ + "/report.json";
    ASSERT_TRUE(WriteFile(options.input, log).ok());
    ASSERT_TRUE(WriteFile(options.output, "earlier").ok());

    const auto report = ScoreLog(options, nullptr);
    ASSERT_FALSE(report.ok());
    EXPECT_EQ(report.status().code(), code) << report.status();
    EXPECT_THAT(std::string(report.status().message()), HasSubstr(message));
    EXPECT_EQ(report.status().message().find('\n'), absl::string_view::npos);

    std::vector<std::string> files;
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) files.push_back(entry.path().filename());
    EXPECT_THAT(files, UnorderedElementsAre("log.csv", "scores.csv"));
    EXPECT_EQ(*ReadFile(options.output), "earlier");
  }

  std::string folder_;
  std::vector<std::string> keep_columns_;
  std::string group_by_;
  std::string model_;
  ScorePipeline::Options pipeline_ = {.deadline = absl::Seconds(20), .first_backoff = absl::Milliseconds(1)};
};

std::string Rows(int count) {
  std::string log = "user,item\n";
  for (int i = 1; i <= count; ++i) absl::StrAppend(&log, "1,", i, "\n");
  return log;
}

TEST_F(ScoreLogFailureTest, RefusedRowIsNamed) {
  FakeServer server([](grpc::ServerContext*, const v1::ScoreRequest& request, v1::ScoreResponse*) {
    // The row behind fails too, and sooner; the first is told.
    if (FirstItem(request) == 71) return grpc::Status(grpc::INTERNAL, "another");
    if (FirstItem(request) != 70) return grpc::Status::OK;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    return grpc::Status(grpc::INVALID_ARGUMENT, "feature 'item': no");
  });
  ExpectError(
      server, Rows(1000), absl::StatusCode::kInvalidArgument,
      absl::StrCat(folder_, "/log.csv:71: row 70: INVALID_ARGUMENT from ", server.address(), ": feature 'item': no"));
  EXPECT_LT(server.requests().size(), 200u);  // the rest was not sent
}

TEST_F(ScoreLogFailureTest, RefusedGroupIsNamed) {
  FakeServer server([](grpc::ServerContext*, const v1::ScoreRequest& request, v1::ScoreResponse*) {
    return FirstItem(request) == 2 ? grpc::Status(grpc::INVALID_ARGUMENT, "no") : grpc::Status::OK;
  });
  ExpectError(server, "request_id,item,x\na,1,\"two\nlines\"\nb,2,\nb,3,\nb,4,\nc,5,\n",
              absl::StatusCode::kInvalidArgument, "/log.csv:4-6: rows 2 to 4: INVALID_ARGUMENT from ");
}

TEST_F(ScoreLogFailureTest, RetriesAreCounted) {
  FakeServer server([](grpc::ServerContext*, const v1::ScoreRequest& request, v1::ScoreResponse*) {
    return FirstItem(request) == 5 ? grpc::Status(grpc::UNAVAILABLE, "draining") : grpc::Status::OK;
  });
  ExpectError(server, Rows(100), absl::StatusCode::kUnavailable,
              absl::StrCat("/log.csv:6: row 5: UNAVAILABLE from ", server.address(), " after 4 attempts: draining"));
}

TEST_F(ScoreLogFailureTest, Deadline) {
  FakeServer server([](grpc::ServerContext* context, const v1::ScoreRequest& request, v1::ScoreResponse*) {
    while (FirstItem(request) == 9 && !context->IsCancelled()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return grpc::Status::OK;
  });
  pipeline_.deadline = absl::Milliseconds(200);
  const auto start = std::chrono::steady_clock::now();
  ExpectError(server, Rows(20), absl::StatusCode::kDeadlineExceeded, "/log.csv:10: row 9: DEADLINE_EXCEEDED from ");
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
}

TEST_F(ScoreLogFailureTest, AnswerOfAnotherLength) {
  FakeServer server([](grpc::ServerContext*, const v1::ScoreRequest& request, v1::ScoreResponse* response) {
    if (FirstItem(request) == 3) response->add_scores(0.5f);
    return grpc::Status::OK;
  });
  ExpectError(server, Rows(5), absl::StatusCode::kInternal, "/log.csv:4: row 3: INTERNAL from ");
  ExpectError(server, Rows(5), absl::StatusCode::kInternal, "2 scores for 1 candidates");
}

TEST_F(ScoreLogFailureTest, AnswerThatIsNoProbability) {
  for (const float wrong : {std::numeric_limits<float>::quiet_NaN(), -0.5f, 1.5f}) {
    FakeServer server([&](grpc::ServerContext*, const v1::ScoreRequest&, v1::ScoreResponse* response) {
      response->set_scores(0, wrong);
      return grpc::Status::OK;
    });
    ExpectError(server, Rows(5), absl::StatusCode::kInternal, "is no probability");
  }
}

TEST_F(ScoreLogFailureTest, BadCell) {
  FakeServer server;
  ExpectError(server, Rows(200) + "1,x\n", absl::StatusCode::kInvalidArgument,
              folder_ + "/log.csv:202: column 'item': 'x' is not an INT64 id");
}

TEST_F(ScoreLogFailureTest, BadLabel) {
  FakeServer server;
  ExpectError(server, "item,label\n1,0\n2,0.5\n", absl::StatusCode::kInvalidArgument,
              "/log.csv:3: column 'label': '0.5' is not a label: 0, 1 or empty");
}

TEST_F(ScoreLogFailureTest, MalformedLog) {
  FakeServer server;
  ExpectError(server, Rows(50) + "1,2,3\n", absl::StatusCode::kInvalidArgument, "/log.csv:52: 3 cells");
}

TEST_F(ScoreLogFailureTest, RequiredFeatureWithoutColumn) {
  FakeServer server;
  server.model()->mutable_config()->mutable_features(1)->set_required(true);
  ExpectError(server, "user\n1\n", absl::StatusCode::kNotFound, "/log.csv: no column 'item', which the model requires");
}

TEST_F(ScoreLogFailureTest, ColumnsOfOptions) {
  FakeServer server;
  keep_columns_ = {"none"};
  ExpectError(server, Rows(5), absl::StatusCode::kNotFound, "/log.csv: no column 'none'");
  keep_columns_.clear();
  group_by_ = "none";
  ExpectError(server, Rows(5), absl::StatusCode::kNotFound, "/log.csv: no column 'none'");
}

TEST_F(ScoreLogFailureTest, UnknownModel) {
  FakeServer server;
  model_ = "none";
  ExpectError(server, Rows(5), absl::StatusCode::kNotFound, "GetModel: NOT_FOUND: no model 'none'");
}

TEST_F(ScoreLogFailureTest, ConfigThatIsNotUnderstood) {
  FakeServer server;
  server.model()->mutable_config()->mutable_features(0)->clear_kind();  // as a kind of a later version arrives
  ExpectError(server, Rows(5), absl::StatusCode::kFailedPrecondition,
              "cannot read the config of model 'toy' version 3");
}

TEST_F(ScoreLogFailureTest, NoServer) {
  auto server = std::make_unique<FakeServer>();
  ScoreLogOptions options;
  options.server.address = server->address();
  options.server.connect_timeout = absl::Milliseconds(200);
  options.input = folder_ + "/log.csv";
  options.output = folder_ + "/scores.csv";
  server.reset();
  ASSERT_TRUE(WriteFile(options.input, Rows(5)).ok());
  const auto start = std::chrono::steady_clock::now();
  const auto report = ScoreLog(options, nullptr);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
  EXPECT_EQ(report.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(std::filesystem::exists(options.output));
}

TEST_F(ScoreLogFailureTest, ServerThatDiesMidway) {
  auto server = std::make_unique<FakeServer>();
  ScoreLogOptions options;
  options.server.address = server->address();
  options.pipeline = pipeline_;
  options.input = folder_ + "/pipe.csv";
  options.output = folder_ + "/scores.csv";
  ASSERT_EQ(::mkfifo(options.input.c_str(), 0600), 0);
  // Rows so long that the reader hands some out before the pipe ends.
  const std::string row = absl::StrCat("1,1,", std::string(2000, 'x'), "\n");
  std::thread writer([&] {
    std::ofstream pipe(options.input);
    pipe << "user,item,padding\n";
    for (int i = 0; i < 200; ++i) pipe << row;
    pipe.flush();
    // Until all that was sent is answered.
    for (size_t seen = 0; seen == 0 || seen < server->requests().size();) {
      seen = server->requests().size();
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    server.reset();
    pipe << row;
  });
  const auto report = ScoreLog(options, nullptr);
  writer.join();
  EXPECT_EQ(report.status().code(), absl::StatusCode::kUnavailable) << report.status();
  EXPECT_THAT(std::string(report.status().message()), HasSubstr(" after 4 attempts: "));
  EXPECT_FALSE(std::filesystem::exists(options.output));
}

}  // namespace
}  // namespace hilomoe
