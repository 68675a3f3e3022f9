// Once warm, Predict allocates nothing of ours.
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/runtime/allocation_count.h"
#include "tests/runtime/request_columns.h"
#include "tests/runtime/served_model.h"

namespace hilomoe {
namespace {

// threads: of the team that requests of 128 candidates and more are split over. Each precision
// rounds its activations in a way of its own.
void ExpectAWarmPredictAllocatesNothing(int threads, Precision precision) {
  const ServedModel model(std::string(kAllFeatures) + kAlignedSequences + "network {" + kAttention + R"(
      blocks { width: 40 experts { layers: 3 experts_per_layer: 8 } }
      blocks { width: 33 experts { layers: 2 experts_per_layer: 8 top_k: 2 } }
      blocks { width: 20 } })",
                          1, {precision, precision, precision});
  const std::unique_ptr<Predictor> predictor = model.Open();
  const auto team = TileTeam::Create(threads);
  ASSERT_TRUE(team.ok()) << team.status();
  RoutingStatistics statistics(model.spec, 1);
  const PredictorHelpers helpers(*predictor, team->get(), 128, &statistics);
  Workspace workspace(*predictor, &helpers, &statistics);
  std::vector<float> scores(200);

  // Shared and flat, few and many candidates, features absent, unknown and out of vocabulary.
  const Columns context{Strings("user", {"s1"}), Ids("history", {100, 101, 999}, {3}), Numbers("age", {30}),
                        Ids("clicks", {100, 102}, {2}), Strings("topics", {"s1", "?"}, {2})};
  const Columns user_alone{Strings("user", {"?"})};
  std::vector<int64_t> items;
  std::vector<std::string> users;
  for (int i = 0; i < 150; ++i) {
    items.push_back(95 + i % 20);
    users.push_back(absl::StrCat("s", i % 9));
  }
  const Columns many{Ids("item", items), Ids("hash", items), Numbers("price", std::vector<float>(150, 2)),
                     Strings("tags", users), Numbers("no such feature", {})};
  const Columns flat{Ids("item", items), Strings("user", users)};
  const Columns one{Ids("item", {103})};
  const Columns age{Numbers("age", {1}), Numbers("days", {2})};
  const RequestView requests[] = {
      {150, context.views(), many.views()},
      {1, user_alone.views(), one.views()},
      {150, age.views(), flat.views()},
      {70, {}, {}},
      {0, context.views(), {}},
  };
  const auto serve = [&] {
    PredictTimes times;
    for (const RequestView& request : requests) {
      const absl::Status status =
          predictor->Predict(request, &workspace, absl::MakeSpan(scores).first(request.num_candidates), &times);
      ASSERT_TRUE(status.ok()) << status;
    }
  };
  const uint64_t cold = Allocations();
  serve();
  EXPECT_GT(Allocations(), cold) << "the counter does not count";
  serve();
  workspace.split_requests = 0;
  const uint64_t warm = Allocations();
  for (int i = 0; i < 20; ++i) serve();
  // Until helpers have come, where there are any.
  for (int i = 0; i < 10'000 && threads > 1 && workspace.split_requests == 0; ++i) serve();
  EXPECT_EQ(workspace.split_requests > 0, threads > 1);
  EXPECT_EQ(Allocations(), warm);
  EXPECT_GT(statistics.Sum().rows, 0);
}

class AllocationTest : public testing::TestWithParam<Precision> {};

TEST_P(AllocationTest, AWarmPredictAllocatesNothing) { ExpectAWarmPredictAllocatesNothing(1, GetParam()); }
TEST_P(AllocationTest, ASplitPredictAllocatesNothing) { ExpectAWarmPredictAllocatesNothing(3, GetParam()); }

INSTANTIATE_TEST_SUITE_P(Precisions, AllocationTest,
                         testing::Values(Precision::kFloat32, Precision::kBfloat16, Precision::kInt8),
                         [](const testing::TestParamInfo<Precision>& info) { return PrecisionName(info.param); });

}  // namespace
}  // namespace hilomoe
