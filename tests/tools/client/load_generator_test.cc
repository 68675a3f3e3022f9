// Loads on servers in this process, over loopback.
#include "tools/client/load_generator.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <thread>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/server.h"
#include "tests/server/test_client.h"
#include "tests/server/test_model.h"
#include "tests/tools/client/fake_server.h"
#include "tools/client/arrival_schedule.h"
#include "tools/client/echo_server.h"
#include "tools/client/load_channels.h"
#include "tools/client/load_report.h"
#include "tools/client/stream_load.h"
#include "tools/client/synthetic_requests.h"

namespace hilomoe {
namespace {

using ::testing::HasSubstr;

LoadOptions Short(double rate) {
  LoadOptions options;
  options.rate = rate;
  options.concurrency = 4;
  options.warmup = absl::Milliseconds(50);
  options.duration = absl::Milliseconds(300);
  options.deadline = absl::Seconds(10);
  return options;
}

std::vector<std::shared_ptr<grpc::Channel>> Channels(const std::string& target, size_t connections = 1) {
  LoadChannelOptions options;
  options.server.address = target;
  options.connections = connections;
  auto channels = ConnectForLoad(options);
  EXPECT_TRUE(channels.ok()) << channels.status();
  return channels.ok() ? *std::move(channels) : std::vector<std::shared_ptr<grpc::Channel>>();
}

class LoadTest : public ::testing::Test {
 protected:
  std::unique_ptr<Server> Start() {
    ServerOptions options;
    options.config.set_model_repository(directory_.path());
    options.config.set_listen_address("127.0.0.1:0");
    options.config.set_metrics_address("127.0.0.1:0");
    options.config.set_evaluation_threads(2);
    auto server = Server::BuildAndStart(options);
    EXPECT_TRUE(server.ok()) << server.status();
    return *std::move(server);
  }
  static std::string Address(const Server& server) { return absl::StrCat("127.0.0.1:", server.listen_port()); }

  std::vector<v1::ScoreRequest> Requests(const std::string& path) {
    const ModelFile file = *ModelFile::Open(path);
    spec_ = file.spec();
    return SyntheticRequests(file.spec(), KnownIdsOf(file),
                             {.count = 12, .candidates = *ParseCandidateMix("1:1,65:1,200:1"), .seed = 1});
  }
  // Of the files <root>/<version>/model.hilomoe.
  ExpectedScores Expect(const std::string& root) {
    auto files = ListModelVersions(root);
    EXPECT_TRUE(files.ok()) << files.status();
    auto expected = ExpectedScores::Compute(*files, requests_);
    EXPECT_TRUE(expected.ok()) << expected.status();
    return *std::move(expected);
  }
  std::vector<grpc::ByteBuffer> Bytes(WireMethod method = WireMethod::kScore) const {
    std::vector<grpc::ByteBuffer> bytes;
    for (const v1::ScoreRequest& request : requests_) bytes.push_back(RequestBytes(method, request, spec_));
    return bytes;
  }
  LoadReport Load(const std::string& target, const ExpectedScores* expected, const LoadOptions& options,
                  size_t connections = 1, WireMethod method = WireMethod::kScore) {
    LoadRecorder recorder(method, requests_, expected);
    LoadGenerator generator(Channels(target, connections), method, Bytes(method), options, &recorder);
    return MakeLoadReport(generator.Run(), recorder, options, requests_, {});
  }

  TemporaryDirectory directory_;
  ModelSpec spec_;
  std::vector<v1::ScoreRequest> requests_;
};

TEST_F(LoadTest, RightScoresAreRight) {
  requests_ = Requests(WriteTestModel(directory_.path()));
  const std::unique_ptr<Server> server = Start();
  const ExpectedScores expected = Expect(directory_.path() + "/ctr");
  for (const double rate : {0.0, 200.0}) {
    const LoadReport report = Load(Address(*server), &expected, Short(rate), 3);
    EXPECT_TRUE(report.scores_are_right()) << report.first_wrong;
    EXPECT_GE(report.right, report.all.sent);
    EXPECT_GT(report.all.sent, 0);
    EXPECT_EQ(report.all.failed + report.all.refused, 0) << report.first_failure;
    EXPECT_EQ(report.by_version, (std::map<uint64_t, int64_t>{{1, report.all.sent}}));
  }
}

TEST_F(LoadTest, TheOpenInferenceProtocolGivesTheSame) {
  requests_ = Requests(WriteTestModel(directory_.path()));
  const std::unique_ptr<Server> server = Start();
  const ExpectedScores expected = Expect(directory_.path() + "/ctr");
  const LoadReport report = Load(Address(*server), &expected, Short(0), 1, WireMethod::kModelInfer);
  EXPECT_TRUE(report.scores_are_right()) << report.first_wrong;
  EXPECT_GT(report.right, 0);
  EXPECT_EQ(report.all.failed + report.all.refused, 0) << report.first_failure;
}

TEST_F(LoadTest, StreamsGiveTheSame) {
  requests_ = Requests(WriteTestModel(directory_.path()));
  requests_.emplace_back();
  requests_.back().set_num_candidates(1);
  requests_.back().set_model("unheard of");
  const std::unique_ptr<Server> server = Start();
  LoadRecorder recorder(WireMethod::kScoreStream, requests_, nullptr);
  const LoadOptions options = Short(0);
  const LoadRun run = RunStreams(Channels(Address(*server), 2), Bytes(), options, &recorder);
  const LoadReport report = MakeLoadReport(run, recorder, options, requests_, {});
  EXPECT_GT(report.all.good, 0);
  EXPECT_GT(report.all.failed, 0);  // of which the stream goes on
  EXPECT_EQ(report.all.by_code.at("NOT_FOUND"), report.all.failed);
  EXPECT_THAT(report.first_failure, HasSubstr("unheard of"));

  requests_.pop_back();
  const ExpectedScores expected = Expect(directory_.path() + "/ctr");
  LoadRecorder checked(WireMethod::kScoreStream, requests_, &expected);
  RunStreams(Channels(Address(*server), 2), Bytes(), options, &checked);
  ASSERT_FALSE(checked.records().empty());
  for (const LoadRecord& record : checked.records())
    ASSERT_EQ(record.verdict, Verdict::kRight) << checked.first_wrong();
}

TEST_F(LoadTest, ScoresOfAnotherModelAreWrong) {
  requests_ = Requests(WriteTestModel(directory_.path()));
  const std::unique_ptr<Server> server = Start();
  TemporaryDirectory other;
  WriteTestModel(other.path(), {.seed = 2});
  const ExpectedScores of_other = Expect(other.path() + "/ctr");
  LoadReport report = Load(Address(*server), &of_other, Short(0));
  EXPECT_FALSE(report.scores_are_right());
  EXPECT_EQ(report.right, 0);
  EXPECT_GE(report.wrong, report.all.sent);
  EXPECT_THAT(report.first_wrong, HasSubstr("version 1, request "));
  EXPECT_THAT(report.first_wrong, HasSubstr(" instead of "));

  // The right file under another version's name.
  TemporaryDirectory renamed;
  WriteTestModel(renamed.path(), {.version = 2});
  const ExpectedScores of_renamed = Expect(renamed.path() + "/ctr");
  report = Load(Address(*server), &of_renamed, Short(0));
  EXPECT_FALSE(report.scores_are_right());
  EXPECT_GE(report.unknown_version, report.all.sent);
}

// One bit of one score.
TEST_F(LoadTest, OneBitIsEnoughToBeWrong) {
  const std::string path = WriteTestModel(directory_.path());
  requests_ = Requests(path);
  const ExpectedScores expected = Expect(directory_.path() + "/ctr");
  LoadRecorder recorder(WireMethod::kScore, requests_, &expected);
  v1::ScoreResponse response;
  response.set_version(1);
  for (const float score : DirectScores(path, requests_[5])) response.add_scores(score);
  const auto add = [&] {
    const std::string text = response.SerializeAsString();
    const grpc::Slice slice(text);
    grpc::ByteBuffer bytes(&slice, 1);
    LoadRecord record;
    record.request = 5;
    recorder.Add(record, grpc::Status::OK, false, &bytes);
    return recorder.records().back().verdict;
  };
  EXPECT_EQ(add(), Verdict::kRight);
  response.set_scores(0, std::nextafter(response.scores(0), 1.0F));
  EXPECT_EQ(add(), Verdict::kWrong);
  EXPECT_THAT(recorder.first_wrong(), HasSubstr("request 5 of the set: candidate 0 has score"));
  response.set_scores(0, std::nextafter(response.scores(0), 0.0F));
  EXPECT_EQ(add(), Verdict::kRight);
  response.add_scores(0.5F);
  EXPECT_EQ(add(), Verdict::kWrong);
}

// While one request keeps the server from all others, those are sent at their times, or as soon as fewer are under way
// again, and their latency counts from their times.
class StallTest : public LoadTest, public ::testing::WithParamInterface<size_t> {};

TEST_P(StallTest, AnOpenLoopIsNotHeldUp) {
  std::mutex one_at_a_time;
  std::atomic<int> arrived{0};
  absl::Time stall_end;
  FakeServer server([&](grpc::ServerContext*, const v1::ScoreRequest&, v1::ScoreResponse*) {
    const bool first = arrived++ == 0;
    // What is sent 50 ms after the first request and later finds it in there.
    const std::lock_guard lock(one_at_a_time);
    if (first) {
      absl::SleepFor(absl::Milliseconds(400));
      stall_end = absl::Now();
    }
    return grpc::Status::OK;
  });
  v1::ScoreRequest request;
  request.set_num_candidates(1);
  requests_.push_back(request);
  LoadOptions options = Short(300);
  options.warmup = absl::ZeroDuration();
  options.max_in_flight = GetParam();
  LoadRecorder recorder(WireMethod::kScore, requests_, nullptr);
  LoadGenerator generator(Channels(server.address()), WireMethod::kScore, Bytes(), options, &recorder);
  const LoadRun run = generator.Run();

  ArrivalSchedule schedule(options.rate, options.seed);
  size_t arrivals = 0;
  const int64_t first = schedule.NextNs();
  for (int64_t at = first; at < run.end_ns; at = schedule.NextNs()) ++arrivals;
  EXPECT_EQ(recorder.records().size(), arrivals);
  EXPECT_LE(run.most_in_flight, GetParam());
  EXPECT_EQ(run.held_back > 0, GetParam() < arrivals);
  const int64_t end_of_stall = absl::ToInt64Nanoseconds(stall_end - run.start);
  size_t waited = 0;
  for (const LoadRecord& record : recorder.records()) {
    EXPECT_EQ(record.code, grpc::OK);
    if (record.start_ns < first + 50'000'000 || record.start_ns >= end_of_stall) continue;
    ++waited;
    // The clocks of both differ by less.
    EXPECT_GT(record.start_ns + record.latency_ns, end_of_stall - 20'000'000);
  }
  EXPECT_GT(waited, arrivals / 2);
}

INSTANTIATE_TEST_SUITE_P(MaxInFlight, StallTest, ::testing::Values(10'000, 4));

TEST_F(LoadTest, WhatFailsIsCounted) {
  FakeServer server([&](grpc::ServerContext* context, const v1::ScoreRequest&, v1::ScoreResponse*) {
    static std::atomic<int> calls{0};
    switch (calls++ % 3) {
      case 0:
        context->AddTrailingMetadata("grpc-retry-pushback-ms", "7");
        return grpc::Status(grpc::RESOURCE_EXHAUSTED, "too much");
      case 1:
        return grpc::Status(grpc::INTERNAL, "broken");
      default:
        return grpc::Status::OK;
    }
  });
  v1::ScoreRequest request;
  request.set_num_candidates(1);
  requests_.push_back(request);
  const LoadReport report = Load(server.address(), nullptr, Short(0));
  EXPECT_GT(report.all.good, 0);
  EXPECT_GT(report.all.refused, 0);
  EXPECT_GT(report.all.failed, 0);
  EXPECT_EQ(report.pushbacks, report.all.refused);
  EXPECT_EQ(report.all.refusal_latency.count(), static_cast<uint64_t>(report.all.refused));
  EXPECT_EQ(report.all.by_code.at("INTERNAL"), report.all.failed);
  EXPECT_EQ(report.all.sent, report.all.good + report.all.refused + report.all.failed);
}

TEST_F(LoadTest, EndsWhenTheServerGoesAway) {
  requests_ = Requests(WriteTestModel(directory_.path()));
  std::unique_ptr<Server> server = Start();
  const std::string address = Address(*server);
  for (const double rate : {0.0, 200.0}) {
    if (server == nullptr) server = Start();
    LoadRecorder recorder(WireMethod::kScore, requests_, nullptr);
    LoadOptions options = Short(rate);
    options.duration = absl::Seconds(2);  // longer than any server takes to go
    options.deadline = absl::Milliseconds(200);
    LoadGenerator generator(Channels(Address(*server)), WireMethod::kScore, Bytes(), options, &recorder);
    std::thread stopper([&] {
      absl::SleepFor(absl::Milliseconds(100));
      server.reset();
    });
    const LoadRun run = generator.Run();
    stopper.join();
    const LoadReport report = MakeLoadReport(run, recorder, options, requests_, {});
    EXPECT_GT(report.all.failed, 0);
    EXPECT_FALSE(report.first_failure.empty());
  }
  server = Start();
  LoadOptions options = Short(0);
  options.duration = absl::Seconds(2);
  LoadRecorder recorder(WireMethod::kScoreStream, requests_, nullptr);
  const auto channels = Channels(Address(*server));
  std::thread stopper([&] {
    absl::SleepFor(absl::Milliseconds(100));
    server.reset();
  });
  RunStreams(channels, Bytes(), options, &recorder);
  stopper.join();
  EXPECT_FALSE(recorder.first_failure().empty());
}

TEST_F(LoadTest, GoesOnlyToHealthyServers) {
  requests_ = Requests(WriteTestModel(directory_.path()));
  const std::unique_ptr<Server> a = Start(), b = Start();
  a->StartDraining();
  LoadChannelOptions channels;
  channels.server.address = absl::StrCat("ipv4:", Address(*a), ",", Address(*b));
  for (const bool watch_health : {false, true}) {
    channels.watch_health = watch_health;
    auto connected = ConnectForLoad(channels);
    ASSERT_TRUE(connected.ok()) << connected.status();
    const auto served_by_a = [&] {
      return SeriesValue(Scrape(a->metrics_port()),
                         R"(hilomoe_requests_total{model="ctr",version="1",method="Score",code="OK"})");
    };
    const double before = watch_health ? served_by_a() : 0;
    LoadRecorder recorder(WireMethod::kScore, requests_, nullptr);
    LoadGenerator generator(*std::move(connected), WireMethod::kScore, Bytes(), Short(0), &recorder);
    generator.Run();
    if (watch_health) {
      EXPECT_EQ(served_by_a(), before);
    }
    EXPECT_EQ(recorder.first_failure(), "");
  }
  b->StartDraining();
  channels.watch_health = true;
  channels.server.connect_timeout = absl::Milliseconds(200);
  const auto connected = ConnectForLoad(channels);
  EXPECT_EQ(connected.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(connected.status().message()), HasSubstr("it is not healthy"));
}

TEST_F(LoadTest, EchoAnswersWithoutLooking) {
  auto server = EchoServer::Start({.candidates = 65});
  ASSERT_TRUE(server.ok()) << server.status();
  v1::ScoreRequest request;
  request.set_num_candidates(65);
  requests_.push_back(request);
  const LoadReport report = Load(absl::StrCat("127.0.0.1:", (*server)->port()), nullptr, Short(0));
  EXPECT_GT(report.all.good, 0);
  EXPECT_EQ(report.all.failed, 0) << report.first_failure;
  EXPECT_TRUE(report.scores_are_right()) << report.first_wrong;
  EXPECT_FALSE(EchoServer::Start({.listen_address = "203.0.113.1:1"}).ok());
}

TEST_F(LoadTest, EchoEndsUnderLoad) {
  v1::ScoreRequest request;
  request.set_num_candidates(65);
  requests_.push_back(request);
  int64_t failed = 0;
  for (int i = 0; i < 10; ++i) {
    auto server = EchoServer::Start({.candidates = 65, .threads = 32});
    ASSERT_TRUE(server.ok()) << server.status();
    LoadOptions options = Short(0);
    options.concurrency = 64;  // some of which end while the server does
    options.deadline = absl::Milliseconds(50);
    options.duration = absl::Milliseconds(100);
    LoadRecorder recorder(WireMethod::kScore, requests_, nullptr);
    LoadGenerator generator(Channels(absl::StrCat("127.0.0.1:", (*server)->port())), WireMethod::kScore, Bytes(),
                            options, &recorder);
    std::thread stopper([&] {
      absl::SleepFor(absl::Milliseconds(50));
      server->reset();
    });
    const LoadReport report = MakeLoadReport(generator.Run(), recorder, options, requests_, {});
    stopper.join();
    failed += report.all.failed;
  }
  EXPECT_GT(failed, 0);
}

}  // namespace
}  // namespace hilomoe
