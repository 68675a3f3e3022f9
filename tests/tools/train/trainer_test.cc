// Whole training runs: stages, reproducibility, evaluation.
#include "tools/train/trainer.h"

#include <algorithm>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/checkpoint.h"
#include "nlohmann/json.hpp"
#include "tests/tools/train/trainer_fixture.h"
#include "tools/train/evaluate_log.h"

namespace hilomoe {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

TEST_F(TrainerTest, LearnsAndIsReproducible) {
  const TrainOptions first = Options("first"), second = Options("second");
  ASSERT_TRUE(Train(first).ok());
  ASSERT_TRUE(Train(second).ok());
  EXPECT_EQ(Read(first.output_dir + "/checkpoint/weights.safetensors"),
            Read(second.output_dir + "/checkpoint/weights.safetensors"));
  const absl::StatusOr<Checkpoint> checkpoint = ReadCheckpoint(first.output_dir + "/checkpoint");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_GT(checkpoint->metrics.at("test.auc"), 0.6);  // popularity and price alone give that much
  EXPECT_EQ(checkpoint->utilisation.size(), 2u);
  EXPECT_GT(checkpoint->samples.num_candidates(), 16u);
  EXPECT_FALSE(std::filesystem::exists(first.output_dir + "/resume"));

  // Another seed is another model.
  TrainOptions other = Options("other");
  other.seed = 2;
  ASSERT_TRUE(Train(other).ok());
  EXPECT_NE(Read(first.output_dir + "/checkpoint/weights.safetensors"),
            Read(other.output_dir + "/checkpoint/weights.safetensors"));
}

TEST_F(TrainerTest, LearnsWithProductsInBfloat16) {
  const TrainOptions plain = Options("plain");
  ASSERT_TRUE(Train(plain).ok());
  const std::string rounded = std::string(kModel) + kStages + "product_precision: BFLOAT16";
  const TrainOptions first = Options("first", rounded), second = Options("second", rounded);
  ASSERT_TRUE(Train(first).ok());
  ASSERT_TRUE(Train(second).ok());
  const std::string weights = Read(first.output_dir + "/checkpoint/weights.safetensors");
  EXPECT_EQ(weights, Read(second.output_dir + "/checkpoint/weights.safetensors"));
  EXPECT_NE(weights, Read(plain.output_dir + "/checkpoint/weights.safetensors"));
  const absl::StatusOr<Checkpoint> expected = ReadCheckpoint(plain.output_dir + "/checkpoint");
  const absl::StatusOr<Checkpoint> checkpoint = ReadCheckpoint(first.output_dir + "/checkpoint");
  ASSERT_TRUE(expected.ok() && checkpoint.ok());
  EXPECT_NEAR(checkpoint->metrics.at("test.auc"), expected->metrics.at("test.auc"), 0.02);
}

TEST_F(TrainerTest, ASharedCacheGivesTheSameModel) {
  TrainOptions first = Options("cached_first"), second = Options("cached_second");
  first.cache_dir = second.cache_dir = Directory() + "/shared_cache";
  std::filesystem::remove_all(first.cache_dir);
  ASSERT_TRUE(Train(first).ok());
  ASSERT_TRUE(Train(second).ok());
  EXPECT_EQ(Read(first.output_dir + "/checkpoint/weights.safetensors"),
            Read(second.output_dir + "/checkpoint/weights.safetensors"));
  const auto count = std::distance(std::filesystem::directory_iterator(first.cache_dir), {});
  EXPECT_EQ(count, 3);  // train, valid, test
  EXPECT_FALSE(std::filesystem::exists(first.output_dir + "/cache"));
}

TEST_F(TrainerTest, TheTestLogIsNotReadBeforeTheEnd) {
  TrainOptions options = Options("unread_test");
  ASSERT_TRUE(absl::IsCancelled(Train(StoppedAfterOneStep(options))));
  for (const auto& entry : std::filesystem::directory_iterator(options.output_dir + "/cache")) {
    EXPECT_NE(entry.path().filename().string().substr(0, 4), "test");
  }
}

// Whoever takes signals for stop_requested must be told when nothing asks any more.
TEST_F(TrainerTest, TheEndOfTheStepsIsTold) {
  TrainOptions options = Options("told");
  int asked = 0, asked_before = -1;
  bool test_read = true;
  options.stop_requested = [&] {
    ++asked;
    return false;
  };
  options.last_step_over = [&] {
    asked_before = asked;
    test_read = false;
    for (const auto& entry : std::filesystem::directory_iterator(options.output_dir + "/cache")) {
      test_read |= entry.path().filename().string().substr(0, 4) == "test";
    }
  };
  ASSERT_TRUE(Train(options).ok());
  EXPECT_GT(asked, 10);
  EXPECT_EQ(asked_before, asked);
  EXPECT_FALSE(test_read);
}

TEST_F(TrainerTest, AStageThatOnlyHurtsIsUndone) {
  std::string stages = kStages;
  const TrainOptions good =
      Options("good", std::string(kModel) + stages.substr(0, stages.find("stages { name: \"experts\"")));
  ASSERT_TRUE(Train(good).ok());
  stages.replace(stages.find("learning_rate: 3e-3"), 19, "learning_rate: 10.0");
  const TrainOptions hurt =
      Options("hurt", std::string(kModel) + stages.substr(0, stages.find("stages { name: \"joint\"")));
  ASSERT_TRUE(Train(hurt).ok());
  const auto a = ReadCheckpoint(good.output_dir + "/checkpoint"), b = ReadCheckpoint(hurt.output_dir + "/checkpoint");
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_EQ(a->metrics.at("test.auc"), b->metrics.at("test.auc"));
}

TEST_F(TrainerTest, ADivergingRunStopsAndKeepsTheLastCheckpoint) {
  TrainOptions options = Options("diverging");
  ASSERT_TRUE(Train(options).ok());
  const std::string before = Read(options.output_dir + "/checkpoint/weights.safetensors");
  // Prices near float's end, taken as they are and into a block without a norm: products overflow.
  std::string log = "label,request_id,user_id,hist_items,item_id,price,account_days\n";
  for (int r = 0; r < 100; ++r) log += std::to_string(r % 2) + ",1,u,1,1,2e38,1\n";
  Write("log/huge.csv", log);
  std::string config = std::string(kModel) + kStages;
  config.replace(config.find("transform: LOG1P"), 16, "transform: NONE");
  config.replace(config.find("train: \"train.csv\""), 18, "train: \"huge.csv\"");
  config.replace(config.find("blocks { width: 12"), 18, "blocks { batch_norm: false width: 12");
  config.replace(config.find("embedding_init_deviation: 0.05"), 30, "embedding_init_deviation: 5");
  Write("diverging.textproto", config);
  const absl::Status status = Train(options);
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted) << status;
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("stage backbone, epoch 1, batch 1: the loss is no longer finite"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("diverging/checkpoint' is what was best before"));
  EXPECT_EQ(Read(options.output_dir + "/checkpoint/weights.safetensors"), before);
  // Where there is none, none is told of.
  std::filesystem::remove_all(options.output_dir);
  const absl::Status first = Train(options);
  EXPECT_EQ(first.code(), absl::StatusCode::kAborted) << first;
  EXPECT_THAT(std::string(first.message()), Not(HasSubstr("diverging/checkpoint")));
}

TEST_F(TrainerTest, EvaluateScoresEveryRow) {
  const TrainOptions options = Options("evaluated");
  ASSERT_TRUE(Train(options).ok());
  EvaluateOptions evaluate;
  evaluate.checkpoint = options.output_dir + "/checkpoint";
  evaluate.logs = {options.data_dir + "/test.csv", options.data_dir + "/valid.csv"};
  evaluate.output = Directory() + "/scores.csv";
  evaluate.tie_gaps = true;
  ASSERT_TRUE(EvaluateLog(evaluate).ok());
  const auto lines = [](const std::string& text) { return std::count(text.begin(), text.end(), '\n'); };
  const std::string scores = Read(evaluate.output);
  EXPECT_EQ(lines(scores) - 1, lines(Read(evaluate.logs[0])) + lines(Read(evaluate.logs[1])) - 2);
  EXPECT_EQ(scores.substr(0, 14), "score,tie_gap\n");
}

TEST_F(TrainerTest, EvaluateSaysWhatItCannotDo) {
  const TrainOptions options = Options("not_evaluated");
  ASSERT_TRUE(Train(options).ok());
  EvaluateOptions evaluate;
  evaluate.checkpoint = options.output_dir + "/checkpoint";
  evaluate.report = Directory() + "/no_report.json";
  // Scores can be had without labels, metrics cannot.
  Write("log/no_label.csv", "user_id,hist_items,item_id,price,account_days\nu1,1,2,3,4\n");
  evaluate.logs = {options.data_dir + "/no_label.csv"};
  absl::Status status = EvaluateLog(evaluate);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("no_label.csv' has no column 'label'"));
  evaluate.report.clear();
  EXPECT_TRUE(EvaluateLog(evaluate).ok());
}

// Only the encoder notices that two histories do not stand side by side: it must say where.
TEST_F(TrainerTest, EvaluateNamesThePlaceOfHistoriesOfDifferentLengths) {
  const auto log = [](const std::string& last) {
    std::string text = "label,item,items,shops\n";
    for (int r = 0; r < 40; ++r) text += std::to_string(r % 2) + "," + std::to_string(r % 3) + ",1^2,7^8\n";
    return text + "1,2,1^2," + last + "\n";
  };
  Write("log/aligned.csv", log("7^8"));
  Write("log/misaligned.csv", log("7"));
  const TrainOptions options = Options("aligned", R"(
model {
  features { id: 1 name: "item" kind: CATEGORICAL scope: CANDIDATE id_type: INT64 embedding_width: 4 }
  features { id: 2 name: "items" kind: SEQUENCE scope: CONTEXT id_type: INT64 share_embedding: "item" }
  features { id: 3 name: "shops" kind: SEQUENCE scope: CONTEXT id_type: INT64 embedding_width: 2 }
  network { attention { query: "item" history: "items" history: "shops" } }
}
data { train: "aligned.csv" valid: "aligned.csv" }
stages { name: "all" epochs: 1 train { group: HEAD learning_rate: 1e-3 } }
)");
  ASSERT_EQ(Train(options), absl::OkStatus());
  EvaluateOptions evaluate;
  evaluate.checkpoint = options.output_dir + "/checkpoint";
  evaluate.logs = {options.data_dir + "/misaligned.csv"};
  const absl::Status status = EvaluateLog(evaluate);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("misaligned.csv:42, or a row before it: "));
}

// Three stages over one pass: as many steps as one epoch has, and every row once.
TEST_F(TrainerTest, OnePassTrainsOnEveryBatchOnce) {
  std::string stages = kStages;
  for (const auto& [from, to] :
       std::vector<std::pair<std::string, std::string>>{{"epochs: 2 evaluations_per_epoch: 2", "share: 0.3"},
                                                        {"epochs: 1", "share: 0.2"},
                                                        {"epochs: 1", "share: 0.5"}}) {
    stages.replace(stages.find(from), from.size(), to);
  }
  const TrainOptions options = Options("one_pass", std::string(kModel) + "one_pass: true" + stages);
  const absl::Status status = Train(options);
  ASSERT_TRUE(status.ok()) << status;
  const std::string log = Read(options.data_dir + "/train.csv");
  const auto rows = static_cast<size_t>(std::count(log.begin(), log.end(), '\n')) - 1;
  const std::vector<Json> lines = Timeless(options.output_dir);
  for (const Json& stage : lines.front().at("stages")) EXPECT_EQ(stage.at("epochs"), 1) << stage;
  const Json& end = lines.back();
  ASSERT_EQ(end.at("event"), "end");
  EXPECT_EQ(end.at("step").get<size_t>(), rows % 256 == 1 ? rows / 256 : (rows + 255) / 256);
}

TEST_F(TrainerTest, BadConfigsAreRefusedWithLineAndField) {
  const struct {
    std::string name, from, to, message;
  } cases[] = {
      {"unknown_field", "batch_size: 256", "batch_sise: 256", ":17:"},
      {"bad_rate", "learning_rate: 3e-3", "learning_rate: -1", "stages[1].train[0].learning_rate"},
      {"bad_size", "width: 12", "width: 0", ":10: model.network.blocks[0].width"},
      {"top_1", "top_k: 2", "top_k: 1", ":11: model.network.blocks[1].experts.top_k"},
      {"no_valid", "valid: \"valid.csv\"", "", "data.valid"},
      {"idle_rate", "optimizer {", "optimizer { table_learning_rate: 0.1", ":15: optimizer.table_learning_rate"},
      {"idle_final", "epochs: 1\n", "epochs: 1 final_rate: 0.1\n", "stages[1].final_rate"},
      {"bad_share", "share_embedding: \"item_id\"", "share_embedding: \"nothing\"", "'nothing'"},
  };
  for (const auto& c : cases) {
    std::string config = std::string(kModel) + kStages;
    config.replace(config.find(c.from), c.from.size(), c.to);
    const absl::Status status = Train(Options(c.name, config));
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.name;
    EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr(c.name + ".textproto:"), HasSubstr(c.message)))
        << c.name;
  }
}

}  // namespace
}  // namespace hilomoe
