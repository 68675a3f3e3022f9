#include "tools/train/comparison_plan.h"

#include <string>

#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "tests/model/test_files.h"

namespace hilomoe {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr char kConfig[] = R"(
model {
  features { id: 1 name: "user" kind: CATEGORICAL scope: CONTEXT id_type: INT64 embedding_width: 4 }
  network { blocks { width: 8 dropout: 0.25 } blocks { width: 4 } }
}
data { train: "train.csv" valid: "valid.csv" test: "test.csv" }
optimizer { beta1: 0.8 embedding_l2: 0.05 }
batch_size: 64
seed: 77
stages { name: "all" epochs: 3 train { group: EMBEDDING learning_rate: 1e-3 } train { group: HEAD learning_rate: 1e-3 } }
)";

constexpr char kComparison[] = R"(
arms { name: "a" config: "base.textproto"
  overrides { optimizer { embedding_l2: 0.1 } model { network { blocks { width: 16 } } } }
  trials { }
  trials { name: "slow" overrides {
    optimizer { beta2: 0.9 }
    stages { name: "one" train { group: BACKBONE learning_rate: 2e-4 } }
  } } }
arms { name: "b" config: "base.textproto" control: true }
seed_range { first: 3 last: 6 }
selection_seeds: 2
judged: "a"
)";

class ComparisonPlanTest : public testing::Test {
 protected:
  void SetUp() override { WriteBytes(directory_ / "base.textproto", kConfig); }
  absl::StatusOr<ComparisonPlan> Read(const std::string& text) {
    WriteBytes(directory_ / "c.textproto", text);
    return ReadComparison(directory_ / "c.textproto");
  }
  TestDirectory directory_;
};

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST_F(ComparisonPlanTest, OverridesReplaceValuesAndListsAndMergeMessages) {
  const auto plan = Read(kComparison);
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_EQ(plan->arms.size(), 2u);
  ASSERT_EQ(plan->arms[0].trials.size(), 2u);
  EXPECT_EQ(plan->arms[0].trials[0].name, "1");
  const v1::TrainingConfig& slow = plan->arms[0].trials[1].config;
  EXPECT_EQ(plan->arms[0].trials[1].name, "slow");
  EXPECT_FLOAT_EQ(slow.optimizer().beta1(), 0.8F);         // of the config
  EXPECT_FLOAT_EQ(slow.optimizer().embedding_l2(), 0.1F);  // of the arm
  EXPECT_FLOAT_EQ(slow.optimizer().beta2(), 0.9F);         // of the trial
  ASSERT_EQ(slow.model().network().blocks_size(), 1);      // the whole list
  EXPECT_EQ(slow.model().network().blocks(0).width(), 16u);
  EXPECT_FALSE(slow.model().network().blocks(0).has_dropout());
  EXPECT_EQ(slow.model().features_size(), 1);
  ASSERT_EQ(slow.stages_size(), 1);
  EXPECT_EQ(slow.stages(0).name(), "one");
  EXPECT_FALSE(slow.stages(0).has_epochs());
  EXPECT_EQ(slow.stages(0).train_size(), 1);
  EXPECT_EQ(plan->arms[1].trials[0].config.model().network().blocks_size(), 2);
  EXPECT_EQ(plan->arms[1].trials[0].config.stages(0).epochs(), 3u);
}

TEST_F(ComparisonPlanTest, TrainingsLearnNeitherTestLogsNorTheConfigsSeed) {
  const auto plan = Read(kComparison);
  ASSERT_TRUE(plan.ok()) << plan.status();
  for (const ComparisonArm& arm : plan->arms) {
    for (const ComparisonTrial& trial : arm.trials) {
      EXPECT_EQ(trial.config.data().test_size(), 0);
      EXPECT_FALSE(trial.config.has_seed());
    }
  }
  EXPECT_THAT(plan->data.test(), ElementsAre("test.csv"));
  EXPECT_THAT(plan->seeds, ElementsAre(3, 4, 5, 6));
  EXPECT_EQ(plan->selection_seeds, 2u);
  EXPECT_EQ(plan->judged, 0u);
  EXPECT_EQ(plan->flops_reference, 1u);
}

TEST_F(ComparisonPlanTest, MistakesAreNamedWithTheirLine) {
  WriteBytes(directory_ / "bad.textproto", Replaced(kConfig, "batch_size: 64", "batch_size: 1"));
  WriteBytes(directory_ / "gauc.textproto", Replaced(kConfig, "seed: 77", "monitor: LOGLOSS"));
  WriteBytes(directory_ / "no_test.textproto", Replaced(kConfig, "test: \"test.csv\"", ""));
  const std::string b = "config: \"base.textproto\" control";
  const struct {
    std::string from, to, message;
  } cases[] = {
      {"beta2: 0.9", "beta2: 1.5", "c.textproto:6: arms[0].trials[1].overrides.optimizer.beta2: 1.5"},
      {"beta2: 0.9", "beta3: 0.9", "c.textproto:6:"},
      {"width: 16", "width: 0", "c.textproto:3: arms[0].overrides.model.network.blocks[0].width"},
      {"trials { }", "", ""},
      {b, "config: \"bad.textproto\" control", "c.textproto:9: arms[1].config: "},
      {b, "config: \"bad.textproto\" control", "bad.textproto:8: batch_size"},
      {b, "config: \"none.textproto\" control", "none.textproto"},
      {b, "config: \"gauc.textproto\" control", "monitors another metric"},
      {b, "config: \"no_test.textproto\" control", "names no test log"},
      {"control: true", "", "none has control"},
      {"judged: \"a\"", "judged: \"b\"", "c.textproto:12: judged: arm 'b' is a control"},
      {"judged: \"a\"", "judged: \"c\"", "no arm is called 'c'"},
      {"name: \"slow\"", "name: \"1\"", "c.textproto:5: arms[0].trials[1].name: '1' stands twice"},
      {"name: \"b\"", "name: \"a\"", "c.textproto:9: arms[1].name: 'a' stands twice"},
      {"name: \"b\"", "name: \"../b\"", "arms[1].name: '../b' must be of letters"},
      {"last: 6", "last: 2", "seed_range"},
      {"seed_range { first: 3 last: 6 }", "seeds: 1 seeds: 1", "one stands twice"},
      {"seed_range { first: 3 last: 6 }", "", "seeds: give either"},
      {"selection_seeds: 2", "selection_seeds: 0", "c.textproto:11: selection_seeds"},
      {"control: true", "control: true overrides { data { test: \"other.csv\" } }", "differ from the first arm's"},
      {"selection_seeds: 2", "bootstrap { resamples: 1 }", "bootstrap.resamples"},
      {"control: true", "control: true curve: \"dense\"", "arms[1].curve: 'dense' has one arm alone"},
  };
  for (const auto& c : cases) {
    const auto plan = Read(Replaced(kComparison, c.from, c.to));
    if (c.message.empty()) {
      EXPECT_TRUE(plan.ok()) << plan.status();
      continue;
    }
    EXPECT_EQ(plan.status().code(), absl::StatusCode::kInvalidArgument) << c.to;
    EXPECT_THAT(std::string(plan.status().message()), AllOf(HasSubstr("c.textproto"), HasSubstr(c.message))) << c.to;
  }
}

// What an arm trains with is its own; what it is measured on is not.
TEST_F(ComparisonPlanTest, ArmsMayDifferInHowTheyReadTheTrainingLog) {
  const auto with = [](const std::string& data) {
    return Replaced(kComparison, "control: true", "control: true overrides { data { " + data + " } }");
  };
  for (const char* data : {"train: \"other.csv\"", "weight: \"w\"", "negative_keep_rate: 0.5", "shuffle_buffer_mib: 64",
                           "slices: \"device\""}) {
    const auto plan = Read(with(data));
    EXPECT_TRUE(plan.ok()) << data << ": " << plan.status();
  }
  for (const char* data : {"valid: \"other.csv\"", "test: \"other.csv\"", "label: \"other\"", "group_by: \"user\""}) {
    EXPECT_THAT(std::string(Read(with(data)).status().message()), HasSubstr("differ from the first arm's")) << data;
  }
}

TEST_F(ComparisonPlanTest, OneMonitorForAll) {
  WriteBytes(directory_ / "logloss.textproto", Replaced(kConfig, "seed: 77", "monitor: LOGLOSS"));
  const auto plan =
      Read(Replaced(kComparison, "config: \"base.textproto\" control", "config: \"logloss.textproto\" control") +
           "monitor: LOGLOSS");
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->monitor, v1::TrainingConfig::LOGLOSS);
  EXPECT_EQ(plan->arms[0].trials[0].config.monitor(), v1::TrainingConfig::LOGLOSS);
}

}  // namespace
}  // namespace hilomoe
