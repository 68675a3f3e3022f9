#include "tools/client/score_pipeline.h"

#include <atomic>
#include <map>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/tools/client/fake_server.h"
#include "tools/client/server_connection.h"

namespace hilomoe {
namespace {

ConnectionOptions At(const std::string& address) {
  ConnectionOptions options;
  options.address = address;
  return options;
}

std::shared_ptr<grpc::Channel> ChannelTo(const FakeServer& server) {
  auto channel = Connect(At(server.address()));
  EXPECT_TRUE(channel.ok()) << channel.status();
  return *channel;
}

void FillItem(int64_t item, v1::ScoreRequest* request) {
  request->clear_candidates();
  request->set_num_candidates(1);
  v1::Column* column = request->add_candidates();
  column->set_feature_id(2);
  column->add_ids(item);
}

ScorePipeline::Options Quick() {
  ScorePipeline::Options options;
  options.deadline = absl::Seconds(20);
  options.first_backoff = absl::Milliseconds(1);
  return options;
}

TEST(ScorePipelineTest, AnswersComeInTheOrderOfSending) {
  // Every seventh is slow, so that those behind it overtake it.
  FakeServer server([](grpc::ServerContext*, const v1::ScoreRequest& request, v1::ScoreResponse*) {
    if (FirstItem(request) % 7 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return grpc::Status::OK;
  });
  ScorePipeline::Options options = Quick();
  options.max_in_flight = 4;
  ScorePipeline pipeline(ChannelTo(server), options);
  int64_t next_answer = 0;
  const auto check = [&](const ScorePipeline::Exchange& exchange) {
    ASSERT_TRUE(exchange.status.ok()) << exchange.status;
    ASSERT_EQ(exchange.response.scores_size(), 1);
    EXPECT_EQ(exchange.response.scores(0), FakeScore(0, next_answer, 0));
    EXPECT_EQ(FirstItem(exchange.request), next_answer);
    EXPECT_GT(exchange.latency.count(), 0);
    EXPECT_EQ(exchange.attempts, 1);
    ++next_answer;
  };
  EXPECT_EQ(pipeline.Await(), nullptr);
  EXPECT_EQ(pipeline.Poll(), nullptr);
  constexpr int64_t kRequests = 200;
  for (int64_t item = 0; item < kRequests; ++item) {
    FillItem(item, &pipeline.Next()->request);
    pipeline.Send();
    while (const auto* exchange = pipeline.Full() ? pipeline.Await() : pipeline.Poll()) check(*exchange);
  }
  while (const auto* exchange = pipeline.Await()) check(*exchange);
  EXPECT_EQ(next_answer, kRequests);
  EXPECT_LE(server.most_at_a_time(), 4);
  EXPECT_GE(server.most_at_a_time(), 2);
}

TEST(ScorePipelineTest, TransientErrorsAreTriedAgain) {
  std::atomic<int> calls = 0;
  FakeServer server([&](grpc::ServerContext*, const v1::ScoreRequest&, v1::ScoreResponse*) {
    switch (calls++) {
      case 0:
        return grpc::Status(grpc::UNAVAILABLE, "draining");
      case 1:
        return grpc::Status(grpc::RESOURCE_EXHAUSTED, "queue full");
      default:
        return grpc::Status::OK;
    }
  });
  ScorePipeline pipeline(ChannelTo(server), Quick());
  FillItem(5, &pipeline.Next()->request);
  pipeline.Send();
  const auto* exchange = pipeline.Await();
  ASSERT_NE(exchange, nullptr);
  EXPECT_TRUE(exchange->status.ok()) << exchange->status;
  EXPECT_EQ(exchange->attempts, 3);
  EXPECT_EQ(exchange->response.scores(0), FakeScore(0, 5, 0));
}

TEST(ScorePipelineTest, RetriesEnd) {
  FakeServer server([&](grpc::ServerContext*, const v1::ScoreRequest&, v1::ScoreResponse*) {
    return grpc::Status(grpc::UNAVAILABLE, "draining");
  });
  for (const int retries : {0, 1, 3}) {
    ScorePipeline::Options options = Quick();
    options.retries = retries;
    ScorePipeline pipeline(ChannelTo(server), options);
    FillItem(5, &pipeline.Next()->request);
    pipeline.Send();
    const auto* exchange = pipeline.Await();
    EXPECT_EQ(exchange->status, absl::UnavailableError("draining"));
    EXPECT_EQ(exchange->attempts, retries + 1);
  }
  EXPECT_EQ(server.requests().size(), 1u + 2u + 4u);
}

TEST(ScorePipelineTest, OtherErrorsAreFinal) {
  FakeServer server([&](grpc::ServerContext*, const v1::ScoreRequest&, v1::ScoreResponse*) {
    return grpc::Status(grpc::INVALID_ARGUMENT, "feature 'item' is wrong");
  });
  ScorePipeline pipeline(ChannelTo(server), Quick());
  FillItem(5, &pipeline.Next()->request);
  pipeline.Send();
  EXPECT_EQ(pipeline.Await()->status, absl::InvalidArgumentError("feature 'item' is wrong"));
  EXPECT_EQ(server.requests().size(), 1u);
}

TEST(ScorePipelineTest, DeadlineEndsAnAttempt) {
  FakeServer server([&](grpc::ServerContext* context, const v1::ScoreRequest&, v1::ScoreResponse*) {
    while (!context->IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return grpc::Status::CANCELLED;
  });
  ScorePipeline::Options options = Quick();
  options.deadline = absl::Milliseconds(50);
  ScorePipeline pipeline(ChannelTo(server), options);
  FillItem(5, &pipeline.Next()->request);
  pipeline.Send();
  const auto* exchange = pipeline.Await();
  EXPECT_EQ(exchange->status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(exchange->attempts, 1);
  EXPECT_GE(exchange->latency, std::chrono::milliseconds(45));
  EXPECT_LT(exchange->latency, std::chrono::seconds(10));
}

// The network is driven while the caller is elsewhere, as when its input comes slowly.
TEST(ScorePipelineTest, AnswersAreTakenInWhileTheCallerIsAway) {
  FakeServer server;
  ScorePipeline::Options options = Quick();
  options.deadline = absl::Milliseconds(500);
  ScorePipeline pipeline(ChannelTo(server), options);
  FillItem(5, &pipeline.Next()->request);
  pipeline.Send();
  std::this_thread::sleep_for(std::chrono::milliseconds(700));
  const auto* exchange = pipeline.Poll();
  ASSERT_NE(exchange, nullptr);
  EXPECT_TRUE(exchange->status.ok()) << exchange->status;
  EXPECT_LT(exchange->latency, std::chrono::milliseconds(500));
}

TEST(ScorePipelineTest, DestructionCancelsCallsAndWaits) {
  std::atomic<int> entered = 0;
  std::atomic<int> cancelled = 0;
  FakeServer server([&](grpc::ServerContext* context, const v1::ScoreRequest& request, v1::ScoreResponse*) {
    if (FirstItem(request) % 2 == 0) return ++entered, grpc::Status(grpc::UNAVAILABLE, "try again");
    ++entered;
    while (!context->IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ++cancelled;
    return grpc::Status::CANCELLED;
  });
  const auto start = std::chrono::steady_clock::now();
  {
    ScorePipeline::Options options = Quick();
    options.first_backoff = absl::Seconds(60);
    options.longest_backoff = absl::Seconds(60);
    ScorePipeline pipeline(ChannelTo(server), options);
    for (int64_t item = 0; item < 6; ++item) {
      FillItem(item, &pipeline.Next()->request);
      pipeline.Send();
    }
    while (entered < 6) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    // So that the answers of those to be tried again have arrived.
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
  while (cancelled < 3) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

TEST(ConnectTest, UnreachableServerFailsWithinTheTimeout) {
  std::string address;
  { address = FakeServer().address(); }  // nothing listens there any more
  ConnectionOptions options = At(address);
  options.connect_timeout = absl::Milliseconds(300);
  const auto start = std::chrono::steady_clock::now();
  const auto channel = Connect(options);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
  EXPECT_EQ(channel.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(channel.status().message()),
              ::testing::AllOf(::testing::HasSubstr("cannot connect to " + address + " within 300ms"),
                               ::testing::HasSubstr("Connection refused")));
}

TEST(ConnectTest, UnknownModelIsNamed) {
  FakeServer server;
  ConnectionOptions options = At(server.address());
  options.model = "none";
  const auto model = FetchModel(ChannelTo(server), options);
  EXPECT_EQ(model.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(std::string(model.status().message()), server.address() + ": GetModel: NOT_FOUND: no model 'none'");
}

}  // namespace
}  // namespace hilomoe
