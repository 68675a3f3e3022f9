#include "server/server_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <thread>

#include "google/protobuf/text_format.h"
#include "prometheus/text_serializer.h"
#include "server/routing_metrics.h"
#include "test_client.h"

namespace hilomoe {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kLabels[] = R"(model="ctr",version="7")";

std::shared_ptr<const ModelMetrics> MakeModel(int threads) {
  ModelFacts facts;
  facts.name = "ctr";
  facts.version = 7;
  facts.created_by = "trainer \"x\"\n";
  facts.instruction_set = "avx2";
  facts.features = {"user", "item"};
  facts.bytes = 1000;
  return std::make_shared<const ModelMetrics>(facts, threads);
}

std::string Expose(const ServerMetrics& metrics) { return prometheus::TextSerializer().Serialize(metrics.Collect()); }

std::string Series(const std::string& name, const std::string& labels = kLabels) { return name + "{" + labels + "}"; }

TEST(ServerMetricsTest, ThreadsAreAddedUp) {
  constexpr int kThreads = 4;
  constexpr uint64_t kRounds = 10000;
  ServerMetrics metrics(kThreads);
  const auto model = MakeModel(kThreads);
  metrics.Add(model);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      EncodeCounts counts;
      for (uint64_t i = 0; i < kRounds; ++i) {
        ModelMetrics::Shard& shard = model->shard(t);
        shard.requests[static_cast<int>(Method::kScore)][0].Add();
        shard.candidates.Add(3);
        shard.split_requests.Add();
        shard.request_candidates.Record(i % 2 == 0 ? 3 : 300);
        shard.stage_ns[static_cast<int>(Stage::kDecode)].Record(20'000);
        counts.values = {5, 6};
        counts.out_of_vocabulary = {1, 0};
        counts.missing = {0, 2};
        counts.unknown_features = 1;
        shard.Take(&counts);
        metrics.shard(t).started.Add();
        metrics.shard(t).shed[static_cast<int>(ShedReason::kQueueFull)].Add();
      }
      EXPECT_EQ(counts.values[0] + counts.out_of_vocabulary[0] + counts.missing[1] + counts.unknown_features, 0);
    });
  }
  for (int i = 0; i < 20; ++i) Expose(metrics);  // scrapes run beside
  for (std::thread& thread : threads) thread.join();

  const std::string text = Expose(metrics);
  const double n = kThreads * kRounds;
  EXPECT_EQ(SeriesValue(text, Series("hilomoe_requests_total", R"(model="ctr",version="7",method="Score",code="OK")")),
            n);
  EXPECT_EQ(SeriesValue(text, Series("hilomoe_candidates_total")), 3 * n);
  EXPECT_EQ(SeriesValue(text, Series("hilomoe_split_requests_total")), n);
  EXPECT_EQ(SeriesValue(text, Series("hilomoe_unknown_features_total")), n);
  EXPECT_EQ(SeriesValue(text, Series("hilomoe_feature_values_total", R"(model="ctr",version="7",feature="item")")),
            6 * n);
  EXPECT_EQ(
      SeriesValue(text, Series("hilomoe_feature_out_of_vocabulary_total", R"(model="ctr",version="7",feature="user")")),
      n);
  EXPECT_EQ(SeriesValue(text, Series("hilomoe_feature_missing_total", R"(model="ctr",version="7",feature="item")")),
            2 * n);
  EXPECT_EQ(SeriesValue(text, Series("hilomoe_requests_shed_total", R"(reason="queue_full")")), n);
  EXPECT_EQ(SeriesValue(text, "hilomoe_requests_in_flight"), n);
  EXPECT_EQ(SeriesValue(text, Series("hilomoe_request_candidates_count")), n);
  EXPECT_EQ(SeriesValue(text, Series("hilomoe_request_candidates_sum")), n / 2 * 303);
  EXPECT_EQ(SeriesValue(text, Series("hilomoe_request_candidates_bucket", std::string(kLabels) + R"(,le="2")")), 0);
  EXPECT_EQ(SeriesValue(text, Series("hilomoe_request_candidates_bucket", std::string(kLabels) + R"(,le="5")")), n / 2);
  EXPECT_EQ(SeriesValue(text, Series("hilomoe_request_candidates_bucket", std::string(kLabels) + R"(,le="500")")), n);
  const std::string decode = std::string(kLabels) + R"(,stage="decode")";
  EXPECT_EQ(SeriesValue(text, Series("hilomoe_stage_duration_seconds_count", decode)), n);
  EXPECT_NEAR(SeriesValue(text, Series("hilomoe_stage_duration_seconds_sum", decode)), n * 20e-6, n * 1e-9);
}

TEST(ServerMetricsTest, BoundsAreInclusiveAndTheLastBucketIsOpen) {
  const auto model = MakeModel(1);
  Histogram& histogram = model->shard(0).request_duration_ns[0];
  for (const uint64_t ns : {0, 50'000, 50'001, 1'000'000'000, 1'000'000'001}) histogram.Record(ns);
  EXPECT_EQ(histogram.count(0), 2);
  EXPECT_EQ(histogram.count(1), 1);
  EXPECT_EQ(histogram.count(histogram.bounds().size() - 1), 1);
  EXPECT_EQ(histogram.count(histogram.bounds().size()), 1);
  for (size_t i = 1; i < histogram.bounds().size(); ++i) {
    const double ratio = static_cast<double>(histogram.bounds()[i]) / static_cast<double>(histogram.bounds()[i - 1]);
    EXPECT_GT(ratio, 1);
    EXPECT_LT(ratio, 1.5);
  }
}

// Every line of the exposition is a comment or a series; every family is described once; buckets only grow.
TEST(ServerMetricsTest, ExpositionIsWellFormed) {
  AdmissionQueue admission(2, 100);
  ServerMetrics metrics(2);
  const auto model = MakeModel(2);
  metrics.Add(model);
  metrics.WatchAdmission(&admission);
  model->shard(1).request_duration_ns[0].Record(3'000'000);
  model->shard(0).scores.Record(std::vector<float>{0.0001F, 0.25F, 0.95F});
  const std::string text = Expose(metrics);

  const std::regex series(R"re(([a-z_]+)(\{([a-z_]+="([^"\\\n]|\\.)*",?)*\})? (\S+))re");
  const std::regex comment(R"(# (HELP|TYPE) ([a-z_]+) .+)");
  std::set<std::string> comments, names, all;
  std::map<std::string, double> last_bucket;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::smatch match;
    if (std::regex_match(line, match, comment)) {
      EXPECT_TRUE(comments.insert(match[1].str() + match[2].str()).second) << line;
      continue;
    }
    ASSERT_TRUE(std::regex_match(line, match, series)) << line;
    names.insert(match[1]);
    EXPECT_TRUE(all.insert(match[1].str() + match[2].str()).second) << "twice: " << line;
    if (const size_t le = line.find("le=\""); le != std::string::npos) {
      double& last = last_bucket[line.substr(0, le)];
      EXPECT_GE(std::stod(match[5]), last) << line;
      last = std::stod(match[5]);
    }
  }
  EXPECT_EQ(last_bucket.size(), 1 + 1 + 3 + kStages);
  EXPECT_EQ(SeriesValue(text, Series("hilomoe_score_bucket", std::string(kLabels) + R"(,le="0.0001")")), 1);
  EXPECT_EQ(SeriesValue(text, Series("hilomoe_score_bucket", std::string(kLabels) + R"(,le="0.3")")), 2);
  EXPECT_EQ(SeriesValue(text, Series("hilomoe_score_count")), 3);
  EXPECT_NEAR(SeriesValue(text, Series("hilomoe_score_sum")), 1.2001, 1e-6);
  for (const char* name :
       {"hilomoe_requests_total", "hilomoe_requests_shed_total", "hilomoe_requests_in_flight", "hilomoe_model_info",
        "hilomoe_model_loaded_timestamp_seconds", "hilomoe_queued_candidates", "hilomoe_evaluation_threads",
        "hilomoe_ready", "hilomoe_draining", "hilomoe_build_info", "process_resident_memory_bytes",
        "process_cpu_seconds_total", "process_open_fds", "process_start_time_seconds"}) {
    EXPECT_EQ(names.count(name), 1) << name;
  }
  EXPECT_THAT(text, HasSubstr(R"(created_by="trainer \"x\"\n")"));
  EXPECT_GT(SeriesValue(text, "process_resident_memory_bytes"), 1e6);
  EXPECT_GT(SeriesValue(text, "process_start_time_seconds"), 1.6e9);
  EXPECT_GT(SeriesValue(text, "process_open_fds"), 2);
  EXPECT_EQ(SeriesValue(text, "hilomoe_evaluation_threads"), 2);
  EXPECT_EQ(SeriesValue(text, "hilomoe_max_queued_candidates"), 100);
}

// Of a model whose routing training has left `trained` about; 20 rows were counted.
std::shared_ptr<const ModelMetrics> MakeRoutedModel(const std::string& experts, const std::string& trained) {
  v1::ModelConfig config;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(
      R"(features { id: 1 name: "a" kind: NUMERIC scope: CANDIDATE }
         network { blocks { width: 3 } blocks { width: 3 experts { )" +
          experts + " } } }",
      &config));
  const absl::StatusOr<ModelSpec> spec = ModelSpec::Create(config);
  EXPECT_TRUE(spec.ok()) << spec.status();
  v1::ModelFileHeader header;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(trained, &header));
  const auto routing = std::make_shared<RoutingStatistics>(*spec, 1);
  RoutingStatistics::Worker* const worker = routing->AddWorker();
  const BlockSpec& block = spec->blocks()[1];
  for (size_t r = 0; r < 20; ++r) {
    for (size_t i = 0; i < block.stack(); ++i) worker->scores()[r * block.stack() + i] = i % block.experts == 0;
  }
  worker->AddRows(20);
  worker->Add(1, 20);
  ModelFacts facts;
  facts.name = "ctr";
  facts.version = 7;
  facts.routing = DescribeRouting(*spec, header);
  return std::make_shared<const ModelMetrics>(facts, 1, routing);
}

TEST(ServerMetricsTest, RoutingIsHeldAgainstTraining) {
  ServerMetrics metrics(1);
  const auto model = MakeRoutedModel("layers: 2 experts_per_layer: 2",
                                     R"(utilisation { block: 1 layers { expert: 0.25 expert: 0.75 entropy: 0.5 }
                                                               layers { expert: 1 expert: 0 } })");
  metrics.Add(model);
  const std::string text = Expose(metrics);
  const std::string labels = std::string(kLabels) + R"(,block="blocks.1",layer=)";
  const auto value = [&](const std::string& name, const std::string& more) {
    return SeriesValue(text, Series(name, labels + more));
  };
  EXPECT_EQ(SeriesValue(text, Series("hilomoe_routing_sampled_rows_total")), 20);
  EXPECT_EQ(value("hilomoe_expert_utilisation_total", R"("0",expert="0")"), 20);
  EXPECT_EQ(value("hilomoe_expert_utilisation_total", R"("1",expert="1")"), 0);
  EXPECT_EQ(value("hilomoe_expert_utilisation_trained", R"("0",expert="1")"), 0.75);
  EXPECT_EQ(value("hilomoe_routing_entropy_trained", R"("0")"), 0.5);
  EXPECT_NEAR(value("hilomoe_routing_entropy_total", R"("0")"), 0, 1e-6);
  EXPECT_EQ(value("hilomoe_routing_drift", R"("0")"), 0.75);
  EXPECT_EQ(value("hilomoe_routing_drift", R"("1")"), 0);
}

// Stored numbers of another shape are none, and the experts of a huge model have no series of their own.
TEST(ServerMetricsTest, RoutingIsShownAsFarAsItIsKnown) {
  for (const char* trained :
       {"", "utilisation { block: 0 layers { expert: 1 expert: 0 } layers { expert: 1 expert: 0 } }",
        "utilisation { block: 1 layers { expert: 0.25 expert: 0.75 } }",
        "utilisation { block: 1 layers { expert: 1 } layers { expert: 0.3 expert: 0.3 expert: 0.4 } }",
        "utilisation { block: 9 layers { expert: 1 expert: 0 } layers { expert: 1 expert: 0 } }"}) {
    ServerMetrics metrics(1);
    const auto model = MakeRoutedModel("layers: 2 experts_per_layer: 2", trained);
    metrics.Add(model);
    const std::string text = Expose(metrics);
    EXPECT_THAT(text, HasSubstr("hilomoe_expert_utilisation_total{")) << trained;
    EXPECT_THAT(text, Not(HasSubstr("trained{"))) << trained;
    EXPECT_THAT(text, Not(HasSubstr("hilomoe_routing_drift{"))) << trained;
  }
  ServerMetrics metrics(1);
  const auto model = MakeRoutedModel("layers: 9 experts_per_layer: 256", "");
  metrics.Add(model);
  const std::string text = Expose(metrics);
  EXPECT_THAT(text, HasSubstr("hilomoe_routing_entropy_total{"));
  EXPECT_THAT(text, Not(HasSubstr("expert=")));
}

TEST(ServerMetricsTest, StateAndModelsComeAndGo) {
  ServerMetrics metrics(1);
  EXPECT_EQ(SeriesValue(Expose(metrics), "hilomoe_ready"), 0);
  metrics.SetReady(true);
  metrics.SetDraining(true);
  auto model = MakeModel(1);
  metrics.Add(model);
  EXPECT_EQ(SeriesValue(Expose(metrics), "hilomoe_ready"), 1);
  EXPECT_EQ(SeriesValue(Expose(metrics), "hilomoe_draining"), 1);
  EXPECT_THAT(Expose(metrics), HasSubstr(kLabels));
  model.reset();
  EXPECT_THAT(Expose(metrics), Not(HasSubstr(kLabels)));
}

}  // namespace
}  // namespace hilomoe
