// What a server tells about the requests that it serves: log, capture, series.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <numeric>
#include <string>
#include <vector>

#include "captured_stderr.h"
#include "server_fixture.h"
#include "tools/common/capture_reader.h"

namespace hilomoe {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kTrace[] = "0af7651916cd43dd8448eb211c80319c";
constexpr char kSpan[] = "b7ad6b7169203331";

class ObservationTest : public ServerTest {
 protected:
  grpc::Status ScoreWith(const std::vector<std::string>& traceparents, const v1::ScoreRequest& request) {
    grpc::ClientContext context;
    for (const std::string& traceparent : traceparents) context.AddMetadata("traceparent", traceparent);
    v1::ScoreResponse response;
    return client_->stub().Score(&context, request, &response);
  }
  // With the model's labels, and others before the closing brace.
  double ModelValue(const std::string& name, const std::string& labels = "") const {
    return Value(name + R"({model="ctr",version="1")" + labels + "}");
  }
};

TEST_F(ObservationTest, TheLogFollowsATrace) {
  options_.config.set_request_log_sample(1);
  StartWithTestModel();
  const std::string log = directory_.path() + "/.stderr";
  const int file = open(log.c_str(), O_WRONLY | O_CREAT, 0600);
  const std::string traceparent = std::string("00-") + kTrace + "-" + kSpan + "-01";
  {
    const RedirectedStderr redirected(file);
    EXPECT_TRUE(ScoreWith({traceparent}, MakeTestRequest(70, 1)).ok());
    EXPECT_TRUE(ScoreWith({}, MakeTestRequest(3, 1)).ok());
    EXPECT_TRUE(ScoreWith({traceparent, traceparent}, MakeTestRequest(3, 1)).ok());
    EXPECT_TRUE(ScoreWith({"00-xyz"}, MakeTestRequest(3, 1)).ok());
    v1::ScoreRequest wrong = MakeTestRequest(3, 1);
    wrong.set_model("no such \"model\"\n");
    EXPECT_FALSE(ScoreWith({traceparent}, wrong).ok());
  }
  close(file);
  std::vector<nlohmann::json> lines;
  for (const nlohmann::json& line : JsonLines(log)) {
    if (line["message"] == "request") lines.push_back(line);
  }
  ASSERT_EQ(lines.size(), 5);
  const nlohmann::json& first = lines[0];
  EXPECT_EQ(first["trace_id"], kTrace);
  EXPECT_EQ(first["span_id"], kSpan);
  EXPECT_EQ(first["model"], "ctr");
  EXPECT_EQ(first["version"], 1);
  EXPECT_EQ(first["candidates"], 70);
  EXPECT_EQ(first["method"], "Score");
  EXPECT_EQ(first["code"], "OK");
  for (const char* stage : {"queue_us", "decode_us", "encode_us", "evaluate_us", "duration_us"}) {
    EXPECT_GT(first.value(stage, 0.0), 0) << stage;
  }
  EXPECT_THAT(first["peer"].get<std::string>(), HasSubstr("127.0.0.1"));
  for (size_t i = 1; i < 4; ++i) EXPECT_FALSE(lines[i].contains("trace_id")) << lines[i];
  const nlohmann::json& wrong = lines[4];
  EXPECT_EQ(wrong["code"], "NOT_FOUND");
  EXPECT_EQ(wrong["trace_id"], kTrace);
  EXPECT_FALSE(wrong.contains("model"));
  EXPECT_FALSE(wrong.contains("evaluate_us"));
  EXPECT_THAT(wrong["error"].get<std::string>(), HasSubstr("no such"));
}

TEST_F(ObservationTest, CapturedRequestsAreThoseThatCame) {
  const std::string path = directory_.path() + "/.capture";
  options_.config.set_capture_path(path);
  options_.config.set_capture_sample(1);
  StartWithTestModel();
  std::vector<std::string> sent;
  for (uint32_t i = 0; i < 5; ++i) {
    const v1::ScoreRequest request = MakeTestRequest(1 + 40 * i, i);
    v1::ScoreResponse response;
    ASSERT_TRUE(client_->Score(request, &response).ok());
    sent.push_back(request.SerializeAsString());
  }
  {
    grpc::ClientContext context;
    const auto stream = client_->stub().ScoreStream(&context);
    const v1::ScoreRequest request = MakeTestRequest(7, 7);
    v1::ScoreResponse response;
    for (int i = 0; i < 2; ++i) {
      ASSERT_TRUE(stream->Write(request));
      ASSERT_TRUE(stream->Read(&response));
      sent.push_back(request.SerializeAsString());
    }
    stream->WritesDone();
    EXPECT_TRUE(stream->Finish().ok());
  }
  EXPECT_TRUE(WaitUntil([this] { return Value("hilomoe_captured_requests_total") == 7; }));
  EXPECT_EQ(Value("hilomoe_capture_dropped_total"), 0);
  EXPECT_GT(Value("hilomoe_capture_bytes"), 100);
  server_.reset();

  auto reader = CaptureReader::Open(path);
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_THAT(reader->start().server(), HasSubstr("hilomoe-server"));
  uint64_t last = 0;
  for (size_t i = 0; i < sent.size(); ++i) {
    v1::CapturedRequest captured;
    const absl::StatusOr<bool> found = reader->Next(&captured);
    ASSERT_TRUE(found.ok() && *found) << i;
    EXPECT_EQ(captured.request(), sent[i]);
    EXPECT_EQ(captured.method(), i < 5 ? "/hilomoe.v1.ScoringService/Score" : "/hilomoe.v1.ScoringService/ScoreStream");
    EXPECT_EQ(captured.timeout_ns() > 0, i < 5) << "the test client sets a deadline, the stream none";
    EXPECT_GT(captured.offset_ns(), last);
    last = captured.offset_ns();
  }
}

TEST_F(ObservationTest, ScoresAndRoutingAreCounted) {
  options_.config.set_routing_sample(1);
  options_.config.set_evaluation_threads(2);
  options_.config.set_split_candidates(128);
  StartWithTestModel();
  const double warm_rows = ModelValue("hilomoe_routing_sampled_rows_total");
  ASSERT_GE(warm_rows, 0);
  double candidates = 0, sum = 0;
  for (uint32_t i = 0; i < 10; ++i) {
    v1::ScoreResponse response;
    ASSERT_TRUE(client_->Score(MakeTestRequest(1 + 50 * i, i), &response).ok());
    candidates += response.scores_size();
    for (const float score : response.scores()) sum += static_cast<double>(score);
  }
  EXPECT_EQ(ModelValue("hilomoe_score_count"), candidates);
  EXPECT_NEAR(ModelValue("hilomoe_score_sum"), sum, 1e-6 * sum);
  EXPECT_EQ(ModelValue("hilomoe_score_bucket", R"(,le="+Inf")"), candidates);
  EXPECT_GT(ModelValue("hilomoe_score_bucket", R"(,le="0.9")"), 0);

  const double rows = ModelValue("hilomoe_routing_sampled_rows_total");
  EXPECT_EQ(rows - warm_rows, candidates);
  // blocks.0: 2 layers of 4 experts, dense; blocks.1: 3 of 8, top 2.
  for (const auto& [block, layers, experts] : {std::tuple(0, 2, 4), {1, 3, 8}}) {
    for (int layer = 0; layer < layers; ++layer) {
      const std::string labels =
          ",block=\"blocks." + std::to_string(block) + "\",layer=\"" + std::to_string(layer) + "\"";
      double mass = 0, drift = 0;
      for (int expert = 0; expert < experts; ++expert) {
        const std::string of_expert = labels + ",expert=\"" + std::to_string(expert) + "\"";
        const double utilisation = ModelValue("hilomoe_expert_utilisation_total", of_expert) / rows;
        const double trained = ModelValue("hilomoe_expert_utilisation_trained", of_expert);
        EXPECT_EQ(trained, 1.0 / experts);
        mass += utilisation;
        drift += std::abs(utilisation - trained) / 2;
      }
      EXPECT_NEAR(mass, 1, 1e-5);
      EXPECT_NEAR(ModelValue("hilomoe_routing_drift", labels), drift, 1e-5);
      const double entropy = ModelValue("hilomoe_routing_entropy_total", labels) / rows;
      EXPECT_GT(entropy, 0.01);
      EXPECT_LT(entropy, block == 0 ? 1.0001 : 0.3334);  // two of eight experts: at most ln 2 / ln 8
      EXPECT_EQ(ModelValue("hilomoe_routing_entropy_trained", labels), kTestEntropy);
    }
  }
  EXPECT_EQ(ModelValue("hilomoe_model_state", R"(,state="AVAILABLE")"), 1);
  EXPECT_EQ(ModelValue("hilomoe_model_state", R"(,state="FAILED")"), 0);
  EXPECT_EQ(Value("hilomoe_log_lines_dropped_total"), static_cast<double>(DroppedLogLines()));
}

// No series of a request's making, and none of a version that is gone.
TEST_F(ObservationTest, SeriesComeAndGoWithVersions) {
  options_.config.set_poll_interval_ms(10);
  StartWithTestModel();
  v1::ScoreRequest request = MakeTestRequest(5, 1);
  v1::ScoreResponse response;
  EXPECT_TRUE(client_->Score(request, &response).ok());
  request.set_model("made up");
  request.add_candidates()->set_feature("made up");
  EXPECT_FALSE(client_->Score(request, &response).ok());
  request.set_model("ctr");
  request.set_version(77);
  EXPECT_FALSE(client_->Score(request, &response).ok());
  const std::string before = Scrape(server_->metrics_port());
  EXPECT_THAT(before, HasSubstr(R"(model="ctr",version="1")"));
  EXPECT_THAT(before, Not(HasSubstr("made up")));
  EXPECT_THAT(before, Not(HasSubstr(R"(version="77")")));

  WriteTestModel(directory_.path(), {.version = 2, .seed = 2});
  EXPECT_TRUE(WaitUntil([this] {
    const std::string now = Scrape(server_->metrics_port());
    return now.find(R"(version="2")") != std::string::npos && now.find(R"(version="1")") == std::string::npos;
  })) << Scrape(server_->metrics_port());
}

}  // namespace
}  // namespace hilomoe
