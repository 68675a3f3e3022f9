#include "server/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <memory>
#include <thread>
#include <vector>

#include "server/overload_detector.h"
#include "server_fixture.h"

namespace hilomoe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

TEST_F(ServerTest, ScoresAreThePredictors) {
  StartWithTestModel();
  for (const uint32_t n : {1, 2, 63, 64, 65, 1000}) {
    v1::ScoreRequest request = MakeTestRequest(n, n);
    request.mutable_options()->set_timings(n == 64);
    v1::ScoreResponse response;
    const grpc::Status status = client_->Score(request, &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(Scores(response), DirectScores(path_, request)) << n;
    EXPECT_EQ(response.model(), "ctr");
    EXPECT_EQ(response.version(), 1);
    EXPECT_EQ(response.has_timings(), n == 64);
    if (n == 64) {
      EXPECT_GT(response.timings().decode_ns(), 0);
      EXPECT_GT(response.timings().encode_ns(), 0);
      EXPECT_GT(response.timings().evaluate_ns(), 0);
    }
  }
  v1::ScoreResponse response;
  EXPECT_TRUE(client_->Score(MakeTestRequest(0, 1), &response).ok());
  EXPECT_EQ(response.scores_size(), 0);
  EXPECT_EQ(response.version(), 1);
}

TEST_F(ServerTest, ManyClientsGetTheirOwnScores) {
  StartWithTestModel();
  constexpr int kClients = 6, kRequests = 150, kDifferent = 10;
  std::vector<v1::ScoreRequest> requests;
  std::vector<std::vector<float>> expected;
  for (uint32_t i = 0; i < kDifferent; ++i) {
    requests.push_back(MakeTestRequest(1 + i * 37, i));
    expected.push_back(DirectScores(path_, requests.back()));
  }
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int c = 0; c < kClients; ++c) {
    threads.emplace_back([&, c] {
      TestClient client(server_->listen_port());
      for (int i = 0; i < kRequests; ++i) {
        const size_t which = static_cast<size_t>(c + i) % kDifferent;
        v1::ScoreResponse response;
        if (!client.Score(requests[which], &response).ok() || Scores(response) != expected[which]) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(Requests("OK"), kClients * kRequests);
  EXPECT_EQ(Value("hilomoe_requests_in_flight"), 0);
  EXPECT_EQ(Value(R"(hilomoe_request_duration_seconds_count{model="ctr",version="1",method="Score"})"),
            kClients * kRequests);
}

// Right scores or UNAVAILABLE, whenever the file goes; the server and its other models live.
TEST_F(ServerTest, AMappedFileIsTruncatedUnderLoad) {
  options_.config.set_model_memory(v1::ServerConfig::MMAP);
  WriteTestModel(directory_.path(), {.model = "cvr", .version = 5});
  StartWithTestModel();
  v1::ScoreRequest request = MakeTestRequest(100, 1);
  request.set_model("ctr");
  const std::vector<float> expected = DirectScores(path_, request);
  std::atomic<int> right{0}, unavailable{0}, wrong{0};
  std::vector<std::thread> threads;
  for (int c = 0; c < 4; ++c) {
    threads.emplace_back([&] {
      TestClient client(server_->listen_port());
      for (int after = 0; after < 20 && wrong == 0;) {
        v1::ScoreResponse response;
        const grpc::Status status = client.Score(request, &response);
        if (status.ok() && Scores(response) == expected) {
          ++right;
        } else if (status.error_code() == grpc::StatusCode::UNAVAILABLE) {
          EXPECT_THAT(status.error_message(), AllOf(HasSubstr("'ctr'"), HasSubstr("version 1")));
          ++unavailable;
          ++after;
        } else {
          ++wrong;
        }
      }
    });
  }
  EXPECT_TRUE(WaitUntil([&] { return right > 50 || wrong > 0; }));
  EXPECT_EQ(unavailable, 0);
  std::filesystem::resize_file(path_, 0);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(unavailable, 4 * 20);
  EXPECT_EQ(Value(R"(hilomoe_model_breakages_total{model="ctr"})"), 1);
  EXPECT_EQ(Value(R"(hilomoe_model_breakages_total{model="cvr"})"), 0);
  EXPECT_TRUE(WaitUntil([&] { return Value(R"(hilomoe_model_state{model="ctr",version="1",state="FAILED"})") == 1; }));
  request.set_model("cvr");
  v1::ScoreResponse response;
  EXPECT_TRUE(client_->Score(request, &response).ok());
}

TEST_F(ServerTest, ACopiedModelDoesNotMindItsFile) {
  StartWithTestModel();
  const v1::ScoreRequest request = MakeTestRequest(100, 1);
  const std::vector<float> expected = DirectScores(path_, request);
  std::filesystem::resize_file(path_, 0);
  v1::ScoreResponse response;
  EXPECT_TRUE(client_->Score(request, &response).ok());
  EXPECT_EQ(Scores(response), expected);
}

TEST_F(ServerTest, WrongRequestsAreExplained) {
  WriteTestModel(directory_.path(), {.model = "cvr", .version = 5});
  StartWithTestModel();
  const auto error = [this](const std::function<void(v1::ScoreRequest*)>& change) {
    v1::ScoreRequest request = MakeTestRequest(3, 1);
    request.set_model("ctr");
    change(&request);
    v1::ScoreResponse response;
    return client_->Score(request, &response);
  };
  const grpc::Status type = error([](auto* r) { r->mutable_candidates(0)->add_numbers(1); });
  EXPECT_EQ(type.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(type.error_message(), HasSubstr("'item'"));
  const grpc::Status rows = error([](auto* r) { r->mutable_candidates(0)->add_ids(1); });
  EXPECT_EQ(rows.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(rows.error_message(), HasSubstr("'item'"));
  const grpc::Status required = error([](auto* r) { r->mutable_context()->DeleteSubrange(0, 1); });
  EXPECT_EQ(required.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(required.error_message(), HasSubstr("'user'"));
  const grpc::Status model = error([](auto* r) { r->set_model("other"); });
  EXPECT_EQ(model.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(model.error_message(), AllOf(HasSubstr("'other'"), HasSubstr("'ctr' version 1"), HasSubstr("'cvr'")));
  const grpc::Status version = error([](auto* r) { r->set_version(9); });
  EXPECT_EQ(version.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(version.error_message(), AllOf(HasSubstr("version 9"), HasSubstr("version 1")));
  EXPECT_EQ(error([](auto* r) { r->clear_model(); }).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  const grpc::Status many = error([](auto* r) { r->set_num_candidates(10001); });
  EXPECT_EQ(many.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(many.error_message(), HasSubstr("max_candidates"));

  EXPECT_TRUE(error([](auto* r) { r->add_context()->set_feature("new"); }).ok());
  EXPECT_EQ(Value(R"(hilomoe_unknown_features_total{model="ctr",version="1"})"), 1);
  EXPECT_EQ(Requests("INVALID_ARGUMENT"), 4);
  EXPECT_EQ(Value(R"(hilomoe_requests_total{model="",version="",method="Score",code="NOT_FOUND"})"), 2);
  EXPECT_THAT(Scrape(server_->metrics_port()), Not(HasSubstr("\"other\"")));
}

TEST_F(ServerTest, BytesThatAreNoRequestAreRefused) {
  StartWithTestModel();
  v1::ScoreRequest truncated = MakeTestRequest(3, 1);
  truncated.GetReflection()->MutableUnknownFields(&truncated)->AddLengthDelimited(4, "\xFF");
  v1::ScoreResponse response;
  const grpc::Status status = client_->Score(truncated, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("ScoreRequest"));
}

TEST_F(ServerTest, TooLargeRequestsAreRefusedAndServingGoesOn) {
  options_.config.set_max_request_bytes(20'000);
  StartWithTestModel();
  for (int i = 0; i < 3; ++i) {
    v1::ScoreResponse response;
    EXPECT_EQ(client_->Score(MakeTestRequest(5000, 1), &response).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
    EXPECT_TRUE(client_->Score(MakeTestRequest(10, 1), &response).ok());
  }
}

TEST_F(ServerTest, RequestsOfManyCandidatesAreSplit) {
  options_.config.set_split_candidates(100);
  path_ = WriteTestModel(directory_.path(), {.config = SlowModelConfig()});
  Start();
  const auto split_requests = [this] { return Value(R"(hilomoe_split_requests_total{model="ctr",version="1"})"); };
  const auto expect_scores = [this](uint32_t candidates) {
    v1::ScoreResponse response;
    ASSERT_TRUE(client_->Score(MakeSlowRequest(candidates), &response).ok());
    EXPECT_EQ(Scores(response), DirectScores(path_, MakeSlowRequest(candidates))) << candidates;
  };
  for (int i = 0; i < 5; ++i) expect_scores(99);
  EXPECT_EQ(split_requests(), 0);
  // Until the helper has woken up early enough.
  EXPECT_TRUE(WaitUntil([&] {
    expect_scores(1000);
    return split_requests() > 0;
  }));
  expect_scores(100);
}

TEST_F(ServerTest, NothingIsSplitWhenSoConfigured) {
  options_.config.set_split_candidates(0);
  path_ = WriteTestModel(directory_.path(), {.config = SlowModelConfig()});
  Start();
  for (int i = 0; i < 5; ++i) {
    v1::ScoreResponse response;
    ASSERT_TRUE(client_->Score(MakeSlowRequest(1000), &response).ok());
  }
  EXPECT_EQ(Value(R"(hilomoe_split_requests_total{model="ctr",version="1"})"), 0);
}

TEST_F(ServerTest, MoreThanMayWaitIsRefusedAtOnce) {
  options_.config.set_max_queued_candidates(10);
  StartWithSlowModel();
  grpc::Status slow_status, waiting_status;
  v1::ScoreResponse slow_response, waiting_response;
  std::thread slow([&] { slow_status = client_->Score(MakeSlowRequest(kSlowCandidates), &slow_response); });
  ASSERT_TRUE(WaitForEvaluation());
  std::thread waiting([&] { waiting_status = client_->Score(MakeSlowRequest(8), &waiting_response); });
  ASSERT_TRUE(WaitUntil([this] { return Value("hilomoe_queued_candidates") == 8; }));
  v1::ScoreResponse response;
  const grpc::Status refused = client_->Score(MakeSlowRequest(3), &response);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.error_message(), HasSubstr("max_queued_candidates"));
  EXPECT_EQ(Value("hilomoe_evaluations_running"), 1);  // the refusal did not wait for it
  slow.join();
  waiting.join();
  EXPECT_TRUE(slow_status.ok()) << slow_status.error_message();
  EXPECT_TRUE(waiting_status.ok()) << waiting_status.error_message();
  EXPECT_EQ(Scores(waiting_response), DirectScores(path_, MakeSlowRequest(8)));
  EXPECT_EQ(Value(R"(hilomoe_requests_shed_total{reason="queue_full"})"), 1);
  EXPECT_EQ(Requests("RESOURCE_EXHAUSTED"), 1);
}

TEST_F(ServerTest, LateAndCancelledRequestsAreNotEvaluated) {
  options_.config.set_max_queued_candidates(1000);
  StartWithSlowModel();
  std::thread slow([&] {
    v1::ScoreResponse response;
    EXPECT_TRUE(client_->Score(MakeSlowRequest(kSlowCandidates), &response).ok());
  });
  ASSERT_TRUE(WaitForEvaluation());
  v1::ScoreResponse response;
  grpc::ClientContext late, cancelled;
  late.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(30));
  EXPECT_EQ(client_->stub().Score(&late, MakeSlowRequest(5), &response).error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
  std::thread cancelling([&] {
    v1::ScoreResponse unused;
    EXPECT_EQ(client_->stub().Score(&cancelled, MakeSlowRequest(7), &unused).error_code(), grpc::StatusCode::CANCELLED);
  });
  ASSERT_TRUE(WaitUntil([this] { return Value("hilomoe_queued_candidates") == 12; }));
  cancelled.TryCancel();
  cancelling.join();
  EXPECT_EQ(Value("hilomoe_evaluations_running"), 1);
  slow.join();
  ASSERT_TRUE(WaitUntil([this] { return Value("hilomoe_requests_in_flight") == 0; }));
  EXPECT_EQ(Value(R"(hilomoe_candidates_total{model="ctr",version="1"})"), kSlowCandidates);
  EXPECT_EQ(Value(R"(hilomoe_requests_shed_total{reason="deadline_in_queue"})") +
                Value(R"(hilomoe_requests_shed_total{reason="cancelled"})"),
            2);
  EXPECT_GE(Value(R"(hilomoe_requests_shed_total{reason="cancelled"})"), 1);
}

// Nobody waits behind work that would end too late for him: with the time that evaluations have taken so far, waiting
// is foreseen.
TEST_F(ServerTest, ADeadlineOutOfReachIsRefusedAtOnceAndSaysWhenToComeAgain) {
  options_.config.set_max_queued_candidates(1'000'000);
  options_.config.set_max_queue_ms(600'000);
  StartWithSlowModel();
  const auto score = [this](uint32_t candidates, std::chrono::milliseconds deadline, std::string* pushback) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + deadline);
    v1::ScoreResponse response;
    const grpc::Status status = client_->stub().Score(&context, MakeSlowRequest(candidates), &response);
    const auto& trailers = context.GetServerTrailingMetadata();
    const auto found = trailers.find("grpc-retry-pushback-ms");
    if (found != trailers.end()) pushback->assign(found->second.data(), found->second.size());
    return status;
  };
  std::string pushback;
  // Learns.
  ASSERT_TRUE(score(1000, std::chrono::minutes(1), &pushback).ok());
  EXPECT_EQ(pushback, "");
  std::thread slow[2];
  for (std::thread& thread : slow) {
    thread = std::thread([&] {
      std::string none;
      EXPECT_TRUE(score(kSlowCandidates, std::chrono::minutes(1), &none).ok());
    });
  }
  ASSERT_TRUE(WaitUntil([this] { return Value("hilomoe_queued_candidates") == kSlowCandidates; }));
  const grpc::Status refused = score(10, std::chrono::milliseconds(100), &pushback);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << refused.error_message();
  EXPECT_THAT(refused.error_message(), HasSubstr("deadline"));
  EXPECT_GE(std::stoi(pushback), 1);
  EXPECT_EQ(Value("hilomoe_evaluations_running"), 1);
  EXPECT_EQ(Value(R"(hilomoe_requests_shed_total{reason="deadline_out_of_reach"})"), 1);
  for (std::thread& thread : slow) thread.join();
}

TEST_F(ServerTest, WhoWouldWaitForTooLongIsRefused) {
  options_.config.set_max_queued_candidates(1'000'000);
  options_.config.set_max_queue_ms(1);
  StartWithSlowModel();
  v1::ScoreResponse response;
  ASSERT_TRUE(client_->Score(MakeSlowRequest(1000), &response).ok());
  std::vector<std::thread> slow;
  for (int i = 0; i < 2; ++i) {
    slow.emplace_back([this] {
      v1::ScoreResponse unused;
      EXPECT_TRUE(client_->Score(MakeSlowRequest(5 * kSlowCandidates), &unused).ok());
    });
  }
  // The first of those that wait does so, because nobody waits before it.
  ASSERT_TRUE(WaitUntil([this] { return Value("hilomoe_queued_candidates") == 5 * kSlowCandidates; }));
  // It is not only a burst.
  std::this_thread::sleep_for(2 * OverloadDetector::kBurst);
  const grpc::Status refused = client_->Score(MakeSlowRequest(1), &response);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.error_message(), HasSubstr("max_queue_ms"));
  EXPECT_EQ(Value(R"(hilomoe_requests_shed_total{reason="queue_full"})"), 1);
  for (std::thread& thread : slow) thread.join();
}

// Between two tiles.
TEST_F(ServerTest, ACancelledEvaluationStops) {
  StartWithSlowModel();
  grpc::ClientContext context;
  std::thread calling([&] {
    v1::ScoreResponse response;
    EXPECT_EQ(client_->stub().Score(&context, MakeSlowRequest(20 * kSlowCandidates), &response).error_code(),
              grpc::StatusCode::CANCELLED);
  });
  ASSERT_TRUE(WaitForEvaluation());
  context.TryCancel();
  calling.join();
  ASSERT_TRUE(WaitUntil([this] { return Value("hilomoe_requests_in_flight") == 0; }));
  EXPECT_EQ(Value(R"(hilomoe_requests_shed_total{reason="cancelled"})"), 1);
  EXPECT_EQ(Value(R"(hilomoe_candidates_total{model="ctr",version="1"})"), 0);
}

TEST_F(ServerTest, GetModelTellsWhatTheModelExpects) {
  StartWithTestModel();
  grpc::ClientContext context;
  v1::GetModelResponse response;
  ASSERT_TRUE(client_->stub().GetModel(&context, v1::GetModelRequest(), &response).ok());
  EXPECT_EQ(response.model(), "ctr");
  EXPECT_EQ(response.version(), 1);
  EXPECT_EQ(response.config().SerializeAsString(), TestModelConfig().SerializeAsString());
  EXPECT_EQ(response.created(), "2025-01-02T03:04:05Z");
  EXPECT_EQ(response.created_by(), "test");
  EXPECT_EQ(response.label(), "click");
  grpc::ClientContext other;
  v1::GetModelRequest request;
  request.set_model("other");
  EXPECT_EQ(client_->stub().GetModel(&other, request, &response).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Value(R"(hilomoe_model_created_timestamp_seconds{model="ctr",version="1"})"), 1735787045);
}

TEST_F(ServerTest, HealthAndReflectionAnswer) {
  StartWithTestModel();
  EXPECT_EQ(client_->Health(""), "SERVING");
  EXPECT_EQ(client_->Health("hilomoe.v1.ScoringService"), "SERVING");
  EXPECT_THAT(client_->Health("other"), Not(HasSubstr("SERVING")));
  EXPECT_THAT(client_->ListServices(), AllOf(HasSubstr("hilomoe.v1.ScoringService"), HasSubstr("grpc.health.v1.Health"),
                                             HasSubstr("grpc.reflection.v1alpha.ServerReflection")));
  EXPECT_EQ(Value("hilomoe_ready"), 1);
  server_->StartDraining();
  EXPECT_EQ(client_->Health(""), "NOT_SERVING");
  EXPECT_EQ(client_->Health("hilomoe.v1.ScoringService"), "NOT_SERVING");
  EXPECT_EQ(Value("hilomoe_ready"), 0);
  EXPECT_EQ(Value("hilomoe_draining"), 1);
  v1::ScoreResponse response;
  EXPECT_TRUE(client_->Score(MakeTestRequest(2, 1), &response).ok());  // still
}

TEST_F(ServerTest, ShutdownLetsRequestsUnderWayEnd) {
  StartWithSlowModel();
  grpc::Status statuses[2];
  std::vector<std::thread> threads;
  for (grpc::Status& status : statuses) {
    threads.emplace_back([&] {
      v1::ScoreResponse response;
      status = client_->Score(MakeSlowRequest(kSlowCandidates / 4), &response);
    });
  }
  ASSERT_TRUE(WaitUntil([this] { return Value("hilomoe_requests_in_flight") == 2; }));
  server_->StartDraining();
  EXPECT_TRUE(server_->Shutdown(std::chrono::seconds(30)));
  for (std::thread& thread : threads) thread.join();
  for (const grpc::Status& status : statuses) EXPECT_TRUE(status.ok()) << status.error_message();
  v1::ScoreResponse response;
  EXPECT_EQ(client_->Score(MakeSlowRequest(1), &response).error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(ServerTest, ShutdownCancelsWhatOutlastsTheGrace) {
  StartWithSlowModel();
  grpc::Status status;
  std::thread slow([&] {
    v1::ScoreResponse response;
    status = client_->Score(MakeSlowRequest(kSlowCandidates), &response);
  });
  ASSERT_TRUE(WaitForEvaluation());
  EXPECT_FALSE(server_->Shutdown(std::chrono::milliseconds(10)));
  slow.join();
  EXPECT_FALSE(status.ok());
}

TEST_F(ServerTest, AnIdleServerNeedsNoGrace) {
  StartWithTestModel();
  EXPECT_EQ(client_->Health(""), "SERVING");
  EXPECT_TRUE(server_->Shutdown(std::chrono::milliseconds(0)));
}

TEST_F(ServerTest, ShutdownDoesNotWaitForHealthWatches) {
  StartWithTestModel();
  const HealthWatch watch(server_->listen_port());
  const auto start = std::chrono::steady_clock::now();
  EXPECT_TRUE(server_->Shutdown(std::chrono::seconds(60)));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

TEST_F(ServerTest, WhatCannotBeServedIsSaid) {
  EXPECT_THAT(Server::BuildAndStart(options_).status().message(), HasSubstr("holds no model"));
  StartWithTestModel();
  ServerOptions second = options_;
  second.config.set_listen_address("127.0.0.1:" + std::to_string(server_->listen_port()));
  EXPECT_THAT(Server::BuildAndStart(second).status().message(), HasSubstr("listen_address"));
  second = options_;
  second.config.set_metrics_address("127.0.0.1:" + std::to_string(server_->metrics_port()));
  EXPECT_THAT(Server::BuildAndStart(second).status().message(), HasSubstr("metrics_address"));
  v1::ScoreResponse response;
  EXPECT_TRUE(client_->Score(MakeTestRequest(1, 1), &response).ok());
}

}  // namespace
}  // namespace hilomoe
