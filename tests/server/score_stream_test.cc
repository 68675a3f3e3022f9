#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "server_fixture.h"

namespace hilomoe {
namespace {

using ::testing::HasSubstr;

class ScoreStreamTest : public ServerTest {
 protected:
  using Stream = grpc::ClientReaderWriter<v1::ScoreRequest, v1::ScoreResponse>;

  std::unique_ptr<Stream> Open(grpc::ClientContext* context) { return client_->stub().ScoreStream(context); }
  double StreamRequests(const std::string& code) const {
    return Value(R"(hilomoe_requests_total{model="ctr",version="1",method="ScoreStream",code=")" + code + "\"}");
  }
};

TEST_F(ScoreStreamTest, EveryRequestHasItsResponseInOrder) {
  StartWithTestModel();
  grpc::ClientContext context;
  const auto stream = Open(&context);
  std::vector<v1::ScoreRequest> requests;
  for (uint32_t i = 0; i < 200; ++i) requests.push_back(MakeTestRequest(1 + i * 7 % 150, i));
  std::thread writing([&] {
    for (const v1::ScoreRequest& request : requests) EXPECT_TRUE(stream->Write(request));
    stream->WritesDone();
  });
  v1::ScoreResponse response;
  for (const v1::ScoreRequest& request : requests) {
    ASSERT_TRUE(stream->Read(&response));
    ASSERT_EQ(Scores(response), DirectScores(path_, request));
    EXPECT_EQ(response.version(), 1);
    EXPECT_EQ(response.code(), 0);
  }
  EXPECT_FALSE(stream->Read(&response));
  writing.join();
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(StreamRequests("OK"), 200);
  EXPECT_EQ(Value("hilomoe_requests_in_flight"), 0);
}

TEST_F(ScoreStreamTest, AWrongRequestDoesNotEndTheStream) {
  StartWithTestModel();
  grpc::ClientContext context;
  const auto stream = Open(&context);
  v1::ScoreRequest wrong = MakeTestRequest(3, 1), unknown = MakeTestRequest(3, 1);
  wrong.mutable_candidates(0)->add_ids(1);
  unknown.set_model("other");
  v1::ScoreResponse response;
  for (int round = 0; round < 3; ++round) {
    ASSERT_TRUE(stream->Write(wrong) && stream->Read(&response));
    EXPECT_EQ(response.code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_THAT(response.message(), HasSubstr("'item'"));
    EXPECT_EQ(response.scores_size(), 0);
    ASSERT_TRUE(stream->Write(unknown) && stream->Read(&response));
    EXPECT_EQ(response.code(), grpc::StatusCode::NOT_FOUND);
    const v1::ScoreRequest right = MakeTestRequest(5, 2);
    ASSERT_TRUE(stream->Write(right) && stream->Read(&response));
    EXPECT_EQ(response.code(), 0);
    EXPECT_EQ(response.message(), "");
    EXPECT_EQ(Scores(response), DirectScores(path_, right));
  }
  stream->WritesDone();
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_TRUE(stream->Finish().ok());
}

// Several at once, some of which break off: all others get their own scores.
TEST_F(ScoreStreamTest, ManyStreamsAndRequestsAtOnce) {
  StartWithTestModel();
  constexpr int kClients = 6, kRounds = 60;
  std::vector<v1::ScoreRequest> requests;
  std::vector<std::vector<float>> expected;
  for (uint32_t i = 0; i < 10; ++i) {
    requests.push_back(MakeTestRequest(1 + i * 37, i));
    expected.push_back(DirectScores(path_, requests.back()));
  }
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int c = 0; c < kClients; ++c) {
    threads.emplace_back([&, c] {
      TestClient client(server_->listen_port());
      for (int round = 0; round < kRounds; ++round) {
        grpc::ClientContext context;
        const auto stream = client.stub().ScoreStream(&context);
        v1::ScoreResponse response;
        for (size_t i = 0; i < 10; ++i) {
          if (c == 0 && i == static_cast<size_t>(round % 10)) break;
          const size_t which = (i + static_cast<size_t>(c)) % 10;
          const bool answered = stream->Write(requests[which]) && stream->Read(&response);
          if (!answered || Scores(response) != expected[which]) ++wrong;
          if (i % 3 == 0 && (!client.Score(requests[which], &response).ok() || Scores(response) != expected[which])) {
            ++wrong;
          }
        }
        if (c == 0) {
          stream->Write(requests[9]);
          context.TryCancel();
        }
        stream->WritesDone();
        if (stream->Finish().ok() != (c != 0)) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_TRUE(WaitUntil([this] { return Value("hilomoe_requests_in_flight") == 0; }));
}

TEST_F(ScoreStreamTest, GoesBehindRequestsThatWait) {
  options_.config.set_max_queue_ms(600'000);
  StartWithSlowModel();
  std::vector<std::thread> threads;
  std::atomic<int> unary{0};
  std::atomic<int> before_stream{-1};
  const auto score = [&] {
    v1::ScoreResponse response;
    EXPECT_TRUE(client_->Score(MakeSlowRequest(5000), &response).ok());
    ++unary;
  };
  threads.emplace_back([&] {
    v1::ScoreResponse response;
    EXPECT_TRUE(client_->Score(MakeSlowRequest(kSlowCandidates), &response).ok());
  });
  ASSERT_TRUE(WaitForEvaluation());
  grpc::ClientContext context;
  const auto stream = Open(&context);
  ASSERT_TRUE(stream->Write(MakeSlowRequest(10)));
  ASSERT_TRUE(WaitUntil([this] { return Value("hilomoe_requests_in_flight") == 2; }));
  for (int i = 0; i < 3; ++i) threads.emplace_back(score);
  ASSERT_TRUE(WaitUntil([this] { return Value("hilomoe_queued_candidates") == 15'000; }));
  v1::ScoreResponse response;
  ASSERT_TRUE(stream->Read(&response));
  before_stream = unary.load();
  EXPECT_EQ(response.scores_size(), 10);
  // The last of them may not have told yet that it was answered.
  EXPECT_GE(before_stream, 2);
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
  for (std::thread& thread : threads) thread.join();
}

TEST_F(ScoreStreamTest, ShutdownEndsIdleStreamsAndAnswersWorkUnderWay) {
  StartWithSlowModel();
  grpc::ClientContext idle_context, busy_context;
  const auto idle = Open(&idle_context), busy = Open(&busy_context);
  v1::ScoreResponse response;
  ASSERT_TRUE(idle->Write(MakeSlowRequest(5)) && idle->Read(&response));
  ASSERT_TRUE(busy->Write(MakeSlowRequest(kSlowCandidates)));
  ASSERT_TRUE(WaitForEvaluation());
  std::thread reading([&] {
    v1::ScoreResponse last;
    EXPECT_TRUE(busy->Read(&last));
    EXPECT_EQ(last.scores_size(), static_cast<int>(kSlowCandidates));
    EXPECT_FALSE(busy->Read(&last));
    EXPECT_EQ(busy->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  });
  EXPECT_TRUE(server_->Shutdown(std::chrono::seconds(60)));
  EXPECT_FALSE(idle->Read(&response));
  const grpc::Status status = idle->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("shuts down"));
  reading.join();
}

// Its responses fill the connection's window, then it is worked for no more; others do not notice.
TEST_F(ScoreStreamTest, AClientThatNeverReadsCostsNothing) {
  StartWithTestModel();
  TestClient deaf(server_->listen_port());
  grpc::ClientContext context;
  const auto stream = deaf.stub().ScoreStream(&context);
  const v1::ScoreRequest request = MakeTestRequest(1000, 1);
  std::atomic<int> sent{0};
  std::thread writing([&] {
    while (sent < 100'000 && stream->Write(request)) ++sent;
  });
  // Writing stops at some point, and so does scoring.
  double scored = -1;
  ASSERT_TRUE(WaitUntil([&] {
    const double before = scored;
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    scored = StreamRequests("OK");
    return scored > 0 && scored == before;
  }));
  EXPECT_LT(sent, 100'000);
  v1::ScoreResponse response;
  EXPECT_TRUE(client_->Score(request, &response).ok());
  context.TryCancel();
  writing.join();
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

}  // namespace
}  // namespace hilomoe
