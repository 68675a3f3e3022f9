#include "tools/train/schedule.h"

#include <cmath>
#include <string>

#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

namespace hilomoe {
namespace {

template <typename Message>
Message Parse(const std::string& text) {
  Message message;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message)) << text;
  return message;
}

TEST(ScheduleTest, ConstantWithoutWarmUp) {
  for (const uint64_t step : {0, 5, 99}) EXPECT_EQ(ScheduleFactor(v1::Stage(), step, 100), 1);
}

TEST(ScheduleTest, WarmsUpThenDecays) {
  const auto linear = Parse<v1::Stage>("warmup_steps: 4 decay: LINEAR final_rate: 0.25");
  EXPECT_DOUBLE_EQ(ScheduleFactor(linear, 0, 14), 0.25);
  EXPECT_DOUBLE_EQ(ScheduleFactor(linear, 3, 14), 1);
  EXPECT_DOUBLE_EQ(ScheduleFactor(linear, 4, 14), 1);
  EXPECT_DOUBLE_EQ(ScheduleFactor(linear, 9, 14), 0.625);
  EXPECT_DOUBLE_EQ(ScheduleFactor(linear, 14, 14), 0.25);
  EXPECT_DOUBLE_EQ(ScheduleFactor(linear, 99, 14), 0.25);
  const auto cosine = Parse<v1::Stage>("decay: COSINE");
  EXPECT_DOUBLE_EQ(ScheduleFactor(cosine, 0, 12), 1);
  EXPECT_NEAR(ScheduleFactor(cosine, 4, 12), 0.75, 1e-15);
  EXPECT_NEAR(ScheduleFactor(cosine, 12, 12), 0, 1e-15);
  // A warm-up that outlasts the stage.
  EXPECT_EQ(ScheduleFactor(linear, 2, 3), 0.75);
}

TEST(ScheduleTest, AnnealsFromAllExpertsToTopK) {
  BlockSpec block;
  block.experts = 16;
  block.top_k = 4;
  const auto stage = Parse<v1::Stage>("top_k_anneal_steps: 12");
  EXPECT_EQ(AnnealedTopK(block, stage, 0), 15);
  EXPECT_EQ(AnnealedTopK(block, stage, 5), 10);
  EXPECT_EQ(AnnealedTopK(block, stage, 11), 4);
  EXPECT_EQ(AnnealedTopK(block, stage, 12), 4);
  EXPECT_EQ(AnnealedTopK(block, Parse<v1::Stage>("top_k_anneal_steps: 1000"), 0), 0);  // still all of them
  EXPECT_EQ(AnnealedTopK(block, v1::Stage(), 0), 4);
  block.top_k = 0;
  EXPECT_EQ(AnnealedTopK(block, stage, 3), 0);
}

TEST(ScheduleTest, StagesShareOnePass) {
  const auto config =
      Parse<v1::TrainingConfig>("one_pass: true stages { share: 0.05 } stages { share: 0.35 } stages { share: 0.6 }");
  using Range = std::pair<uint64_t, uint64_t>;
  EXPECT_EQ(StageBatches(config, 0, 200), Range(0, 10));
  EXPECT_EQ(StageBatches(config, 1, 200), Range(10, 80));
  EXPECT_EQ(StageBatches(config, 2, 200), Range(80, 200));
  EXPECT_EQ(StageBatches(config, 0, 3), Range(0, 1));
  EXPECT_EQ(StageBatches(config, 2, 1), Range(0, 1));
  EXPECT_EQ(StageBatches(Parse<v1::TrainingConfig>("stages {} stages {}"), 1, 7), Range(0, 7));
}

}  // namespace
}  // namespace hilomoe
