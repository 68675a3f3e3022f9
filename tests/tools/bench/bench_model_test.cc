// What the benchmarks say of the bench model is true of the model that is served.
#include "tools/bench/bench_model.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"
#include "hilomoe/v1/training_config.pb.h"
#include "model/text_proto.h"

namespace hilomoe::bench {
namespace {

// It is the model that other engines are compared on.
TEST(BenchModelTest, IsThatOfTheConfig) {
  v1::TrainingConfig config;
  const absl::Status read = ReadTextProto(HILOMOE_BENCH_MODEL, &config);
  ASSERT_TRUE(read.ok()) << read;
  std::string difference;
  google::protobuf::util::MessageDifferencer differencer;
  differencer.set_message_field_comparison(google::protobuf::util::MessageDifferencer::EQUIVALENT);
  differencer.ReportDifferencesToString(&difference);
  EXPECT_TRUE(differencer.Compare(config.model(), BenchSpec({}).config())) << difference;
}

// Of each precision and kind of routing.
class BenchModelBytesTest : public testing::TestWithParam<BenchModelOptions> {};

// The bytes by which limits are computed are those that the predictor packs: up to biases and the like, which it reads
// from the file, and the scales and offsets of int8 weights.
TEST_P(BenchModelBytesTest, CountsTheBytesOfPackedWeights) {
  const absl::StatusOr<std::unique_ptr<BenchModel>> model = BenchModel::Create(GetParam());
  ASSERT_TRUE(model.ok()) << model.status();
  const absl::StatusOr<const Predictor*> predictor = (*model)->Open();
  ASSERT_TRUE(predictor.ok()) << predictor.status();
  const double packed = static_cast<double>((*predictor)->bytes() - (*predictor)->file().bytes());
  EXPECT_NEAR(BenchDenseBytes(GetParam()) / packed, 1, 0.03);
}

INSTANTIATE_TEST_SUITE_P(Models, BenchModelBytesTest,
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
