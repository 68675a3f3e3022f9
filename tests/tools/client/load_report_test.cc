#include "tools/client/load_report.h"

#include <filesystem>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/file_io.h"
#include "nlohmann/json.hpp"

namespace hilomoe {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kMs = 1'000'000;

class LoadReportTest : public ::testing::Test {
 protected:
  LoadReportTest() {
    run_.start = absl::FromUnixSeconds(1'000'000);
    run_.begin_ns = 1000 * kMs;
    run_.end_ns = 4000 * kMs;
    options_.deadline = absl::Milliseconds(100);
  }

  void Add(int64_t start_ms, int64_t latency_ms, uint64_t version) {
    v1::ScoreResponse response;
    response.set_version(version);
    response.mutable_scores()->Resize(2, 0.5F);
    const std::string text = response.SerializeAsString();
    const grpc::Slice slice(text);
    grpc::ByteBuffer bytes(&slice, 1);
    recorder_.Add(Record(start_ms, latency_ms), grpc::Status::OK, false, &bytes);
  }
  void Fail(int64_t start_ms, int64_t latency_ms, grpc::StatusCode code) {
    grpc::ByteBuffer none;
    recorder_.Add(Record(start_ms, latency_ms), grpc::Status(code, "why"), code == grpc::RESOURCE_EXHAUSTED, &none);
  }
  LoadReport Report(const SwapWindows& swaps = {}) {
    return MakeLoadReport(run_, recorder_, options_, requests_, {swaps, absl::Seconds(1)});
  }

  static v1::ScoreRequest OfTwo() {
    v1::ScoreRequest request;
    request.set_num_candidates(2);
    return request;
  }

  const std::vector<v1::ScoreRequest> requests_ = {OfTwo()};
  LoadOptions options_;
  LoadRun run_;
  LoadRecorder recorder_{WireMethod::kScore, requests_, nullptr};

 private:
  static LoadRecord Record(int64_t start_ms, int64_t latency_ms) {
    LoadRecord record;
    record.start_ns = start_ms * kMs;
    record.latency_ns = latency_ms * kMs;
    return record;
  }
};

TEST_F(LoadReportTest, CountsByHowRequestsEnded) {
  Add(500, 1, 1);     // warming up
  Add(1000, 10, 1);   // good
  Add(1500, 150, 1);  // too late
  Fail(2000, 1, grpc::RESOURCE_EXHAUSTED);
  Fail(2100, 3, grpc::DEADLINE_EXCEEDED);    // the server's refusal
  Fail(2200, 100, grpc::DEADLINE_EXCEEDED);  // nobody answered
  Fail(3999, 5, grpc::UNAVAILABLE);
  Add(4000, 1, 1);  // after the end
  const LoadReport report = Report();
  EXPECT_EQ(report.all.sent, 6);
  EXPECT_EQ(report.all.good, 1);
  EXPECT_EQ(report.all.latency.count(), 2u);
  EXPECT_EQ(report.all.candidates, 4);
  EXPECT_EQ(report.all.refused, 2);
  EXPECT_EQ(report.all.failed, 2);
  EXPECT_EQ(report.pushbacks, 1);
  EXPECT_EQ(report.all.refusal_latency.max_ns(), 3u * kMs);
  EXPECT_EQ(report.all.by_code,
            (std::map<std::string, int64_t>{
                {"OK", 2}, {"RESOURCE_EXHAUSTED", 1}, {"DEADLINE_EXCEEDED", 2}, {"UNAVAILABLE", 1}}));
  ASSERT_EQ(report.timeline.size(), 3u);
  EXPECT_EQ(report.timeline[0].sent, 2);
  EXPECT_EQ(report.timeline[1].refused, 2);
  EXPECT_EQ(report.timeline[1].failed, 1);
  EXPECT_EQ(report.timeline[2].failed, 1);
  EXPECT_EQ(report.first_failure, "RESOURCE_EXHAUSTED: why");
}

TEST_F(LoadReportTest, TellsSwapsFromTheRest) {
  Add(1000, 10, 1);
  Add(1900, 10, 1);
  Add(1950, 40, 1);  // published at 1940 ms
  Add(2000, 50, 2);  // the first answer, at 2050 ms
  Add(2140, 30, 2);  // until 100 ms later
  Add(2150, 10, 2);
  Add(3000, 10, 3);  // the next one, at 3010 ms; when it was published is not known
  Add(3200, 10, 3);
  SwapWindows swaps;
  swaps.published = {run_.start + absl::Milliseconds(1940)};
  LoadReport report = Report(swaps);
  EXPECT_EQ(report.swaps, 2);
  EXPECT_EQ(report.in_swaps.sent, 4);
  EXPECT_EQ(report.steady.sent, 4);
  EXPECT_EQ(report.in_swaps.latency.max_ns(), 50u * kMs);
  EXPECT_EQ(report.steady.latency.max_ns(), 10u * kMs);
  EXPECT_NEAR(report.seconds_in_swaps, 0.210 + 0.600, 1e-6);
  EXPECT_EQ(report.by_version, (std::map<uint64_t, int64_t>{{1, 3}, {2, 3}, {3, 2}}));
  EXPECT_THAT(report.ToText(), HasSubstr("2 swaps"));
}

TEST_F(LoadReportTest, JsonAndText) {
  Add(1000, 10, 1);
  Fail(2000, 1, grpc::RESOURCE_EXHAUSTED);
  const LoadReport report = Report();
  const nlohmann::json json = nlohmann::json::parse(report.ToJson({{"loop", "open"}}));
  EXPECT_EQ(json["setup"]["loop"], "open");
  EXPECT_EQ(json["sent"], 2);
  EXPECT_EQ(json["by_code"]["RESOURCE_EXHAUSTED"], 1);
  EXPECT_NEAR(json["latency_ms"]["p50"].get<double>(), 10, 0.04);
  EXPECT_EQ(json["timeline"].size(), 3u);
  EXPECT_THAT(report.ToText(), HasSubstr("2 sent"));
  EXPECT_THAT(report.ToText(), HasSubstr("RESOURCE_EXHAUSTED 1"));
}

TEST(ReadTimesTest, Reads) {
  const std::string path = ::testing::TempDir() + "/swap_times";
  ASSERT_TRUE(WriteFile(path, "1700000000.25 version 2\n\n1700000001\n").ok());
  const auto times = ReadTimes(path);
  ASSERT_TRUE(times.ok());
  ASSERT_EQ(times->size(), 2u);
  EXPECT_NEAR(absl::ToDoubleSeconds((*times)[0] - absl::FromUnixSeconds(1'700'000'000)), 0.25, 1e-6);
  ASSERT_TRUE(WriteFile(path, "soon\n").ok());
  EXPECT_THAT(std::string(ReadTimes(path).status().message()), HasSubstr("'soon' does not begin with a time"));
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace hilomoe
