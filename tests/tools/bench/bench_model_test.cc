// What the benchmarks say of the bench model is true of the model that is served.
#include "tools/bench/bench_model.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace hilomoe::bench {
namespace {

// Of each precision and kind of routing.
class BenchModelTest : public testing::TestWithParam<BenchModelOptions> {};

// The bytes by which limits are computed are those that the predictor packs: up to biases and the like, which it reads
// from the file, and the scales and offsets of int8 weights.
TEST_P(BenchModelTest, CountsTheBytesOfPackedWeights) {
  const absl::StatusOr<std::unique_ptr<BenchModel>> model = BenchModel::Create(GetParam());
  ASSERT_TRUE(model.ok()) << model.status();
  const absl::StatusOr<const Predictor*> predictor = (*model)->Open();
  ASSERT_TRUE(predictor.ok()) << predictor.status();
  const double packed = static_cast<double>((*predictor)->bytes() - (*predictor)->file().bytes());
  EXPECT_NEAR(BenchDenseBytes(GetParam()) / packed, 1, 0.03);
}

INSTANTIATE_TEST_SUITE_P(Models, BenchModelTest,
                         testing::Values(BenchModelOptions{.ids = 50},
                                         BenchModelOptions{.ids = 50, .precision = Precision::kBfloat16},
                                         BenchModelOptions{.ids = 50, .precision = Precision::kInt8},
                                         BenchModelOptions{.ids = 50, .top_k = 4},
                                         BenchModelOptions{.ids = 50, .top_k = 4, .precision = Precision::kInt8}),
                         [](const testing::TestParamInfo<BenchModelOptions>& info) {
                           return absl::StrCat(PrecisionName(info.param.precision), "_top_k_", info.param.top_k);
                         });

}  // namespace
}  // namespace hilomoe::bench
