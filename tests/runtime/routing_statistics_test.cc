#include "runtime/routing_statistics.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/runtime/served_model.h"

namespace hilomoe {
namespace {

// Both kinds of routing, a block without experts, a cross layer, a lone expert.
const std::string kConfig = std::string(kAllFeatures) + R"(network {
    blocks { width: 17 experts { layers: 3 experts_per_layer: 5 } }
    blocks { width: 12 }
    blocks { width: 9 experts { layers: 2 experts_per_layer: 20 top_k: 3 } }
    blocks { width: 8 experts { layers: 2 experts_per_layer: 1 } }
    cross { experts { layers: 2 experts_per_layer: 4 } } })";

std::vector<float> Evaluate(const Predictor& predictor, const EncodedBatch& batch, Workspace* workspace) {
  std::vector<float> logits(batch.candidate_rows, NAN);
  predictor.Evaluate(batch, workspace, absl::MakeSpan(logits));
  return logits;
}

// Sums over the rows of a batch against the reference's, which evaluates in double.
void ExpectSums(const ServedModel& model, const RoutingStatistics::Totals& totals, const EncodedBatch& batch) {
  const ReferenceOutput<Rounded> expected = model.Reference(batch);
  for (const double gap : expected.tie_gap) ASSERT_GT(gap, Rounded::kDeviations) << "choose another seed";
  ASSERT_EQ(totals.rows, batch.candidate_rows);
  ASSERT_EQ(totals.layers.size(), 3U + 2 + 2 + 2);
  std::map<size_t, size_t> layers;
  for (const RoutingStatistics::Layer& layer : totals.layers) {
    const BlockSpec& block = model.spec.blocks()[layer.block];
    ASSERT_EQ(layer.layer, layers[layer.block]++);
    ASSERT_EQ(layer.mass.size(), block.experts);
    double entropy = 0;
    std::vector<double> mass(block.experts);
    for (size_t r = 0; r < batch.candidate_rows; ++r) {
      for (size_t i = 0; i < block.experts; ++i) {
        const double s = expected.scores[layer.block][(r * block.layers + layer.layer) * block.experts + i].value;
        mass[i] += s;
        entropy -= s > 0 ? s * std::log(s) : 0;
      }
    }
    entropy = block.experts > 1 ? entropy / std::log(static_cast<double>(block.experts)) : totals.rows;
    // The logarithm is off by 6e-5 at most, times scores that sum to 1; scores by rounding errors of float32, some
    // 1e-6 after so few terms.
    EXPECT_NEAR(layer.entropy, entropy, 2e-4 * totals.rows);
    for (size_t i = 0; i < block.experts; ++i) EXPECT_NEAR(layer.mass[i], mass[i], 1e-5 * totals.rows);
  }
}

TEST(RoutingStatisticsTest, SumsAreThoseOfTheReference) {
  const ServedModel model(kConfig, 3);
  const std::unique_ptr<Predictor> predictor = model.Open();
  for (const bool shared : {true, false}) {
    RoutingStatistics statistics(model.spec, 1);
    Workspace workspace(*predictor, nullptr, &statistics);
    const EncodedBatch batch = RandomBatch(model.spec, model.table_rows, 150, shared, 5);
    Evaluate(*predictor, batch, &workspace);
    ExpectSums(model, statistics.Sum(), batch);
  }
}

// Every tile is counted once, whoever evaluates it, and counting changes no bit of a score.
TEST(RoutingStatisticsTest, HelpersAddTheirTiles) {
  const ServedModel model(kConfig, 3);
  const std::unique_ptr<Predictor> predictor = model.Open();
  const auto team = TileTeam::Create(3);
  ASSERT_TRUE(team.ok()) << team.status();
  const EncodedBatch batch = RandomBatch(model.spec, model.table_rows, 1000, true, 5);
  Workspace uncounted(*predictor);
  const std::vector<float> expected = Evaluate(*predictor, batch, &uncounted);

  RoutingStatistics statistics(model.spec, 1);
  const PredictorHelpers helpers(*predictor, team->get(), 128, &statistics);
  Workspace workspace(*predictor, &helpers, &statistics);
  int runs = 0;
  for (; runs < 10'000 && (runs < 3 || workspace.split_requests == 0); ++runs) {
    const std::vector<float> logits = Evaluate(*predictor, batch, &workspace);
    ASSERT_EQ(std::memcmp(logits.data(), expected.data(), logits.size() * sizeof(float)), 0);
  }
  EXPECT_GT(workspace.split_requests, 0U);
  const RoutingStatistics::Totals totals = statistics.Sum();
  EXPECT_EQ(totals.rows, runs * 1000.0);
  for (const RoutingStatistics::Layer& layer : totals.layers) {
    double sum = 0;
    for (const double mass : layer.mass) sum += mass;
    EXPECT_NEAR(sum, totals.rows, 1e-5 * totals.rows) << layer.block << ", " << layer.layer;
  }
}

// Requests of as many tiles as the mean distance, so that a fixed one would always meet the same tile of them.
TEST(RoutingStatisticsTest, EveryTileIsAsLikely) {
  const ServedModel model(kConfig);
  constexpr int kOneIn = 16, kRequests = 100'000;
  RoutingStatistics statistics(model.spec, kOneIn);
  RoutingStatistics::Worker* const worker = statistics.AddWorker();
  std::vector<int> sampled(kOneIn);
  for (int i = 0; i < kRequests; ++i) {
    for (int& tile : sampled) tile += worker->Sample();
  }
  // Of 100,000 independent draws with probability 1/16, 5 standard deviations are 383. Distances spread less.
  for (const int n : sampled) EXPECT_NEAR(n, kRequests / kOneIn, 383);
}

TEST(RoutingStatisticsTest, NothingIsSampledWithoutNeed) {
  const ServedModel with(kConfig);
  const ServedModel without(std::string(kAllFeatures) + "network { blocks { width: 17 } }");
  RoutingStatistics off(with.spec, 0), empty(without.spec, 1);
  for (RoutingStatistics* statistics : {&off, &empty}) {
    RoutingStatistics::Worker* const worker = statistics->AddWorker();
    for (int i = 0; i < 100; ++i) EXPECT_FALSE(worker->Sample());
    EXPECT_EQ(statistics->Sum().rows, 0);
  }
  EXPECT_TRUE(empty.Sum().layers.empty());
}

// One broken row must not make a counter NaN for good.
TEST(RoutingStatisticsTest, WhatIsNoNumberCountsAsZero) {
  const ServedModel model(std::string(kAllFeatures) +
                          "network { blocks { experts { layers: 1 experts_per_layer: 2 } width: 3 } }");
  RoutingStatistics statistics(model.spec, 1);
  RoutingStatistics::Worker* const worker = statistics.AddWorker();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const auto& [i, s] : std::map<int, float>{{0, nan}, {1, nan}, {2, 0.5F}, {3, 0.5F}, {4, 0}, {5, 1}}) {
    worker->scores()[i] = s;
  }
  worker->AddRows(3);
  worker->Add(0, 3);
  const RoutingStatistics::Totals totals = statistics.Sum();
  EXPECT_EQ(totals.rows, 3);
  EXPECT_NEAR(totals.layers[0].mass[0], 0.5, 1e-6);
  EXPECT_NEAR(totals.layers[0].mass[1], 1.5, 1e-6);
  EXPECT_NEAR(totals.layers[0].entropy, 1, 1e-6);  // an even row has the most there is, one that is sure none
}

}  // namespace
}  // namespace hilomoe
