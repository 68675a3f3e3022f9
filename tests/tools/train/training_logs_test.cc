// Whole training runs on odd, bad, weighted, thinned and new logs.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "model/checkpoint.h"
#include "nlohmann/json.hpp"
#include "tests/tools/train/trainer_fixture.h"
#include "tools/train/evaluate_log.h"
#include "tools/train/training_config.h"
#include "tools/train/warm_start.h"

namespace hilomoe {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

// A log of `rows` rows with these cells behind label, request and weight.
std::string WeightedLog(size_t rows, const std::function<std::string(size_t)>& weight,
                        const std::function<std::string(size_t)>& history = nullptr) {
  std::string log = "label,request_id,w,user_id,hist_items,item_id,price,account_days\n";
  for (size_t r = 0; r < rows; ++r) {
    absl::StrAppend(&log, r * r % 7 % 2, ",", r / 5, ",", weight(r), ",u", r % 9, ",", history ? history(r) : "1^2",
                    ",", r % 11, ",", r % 13, ",5\n");
  }
  return log;
}

TEST_F(TrainerTest, WeightsWeighRows) {
  const auto train = [](const std::string& name, const std::string& weight_field,
                        const std::function<std::string(size_t)>& weight) {
    Write("log/" + name + ".csv", WeightedLog(600, weight));
    std::string config = std::string(kModel) + kStages;
    config.replace(config.find("train: \"train.csv\""), 18, weight_field + " train: \"" + name + ".csv\"");
    const TrainOptions options = Options(name, config);
    const absl::Status status = Train(options);
    return status.ok() ? Read(options.output_dir + "/checkpoint/weights.safetensors") : std::string(status.message());
  };
  const std::string unweighted = train("w_none", "", [](size_t) { return "1"; });
  EXPECT_EQ(train("w_one", "weight: \"w\"", [](size_t) { return "1"; }), unweighted);
  EXPECT_NE(train("w_some", "weight: \"w\"", [](size_t r) { return r % 3 == 0 ? "0.5" : "2"; }), unweighted);
  EXPECT_EQ(train("w_zero", "weight: \"w\"", [](size_t) { return "0"; }),
            "every training row has weight 0; nothing to learn");
  EXPECT_THAT(train("w_negative", "weight: \"w\"", [](size_t r) { return r == 8 ? "-1" : "1"; }),
              HasSubstr("w_negative.csv:10: column 'w': '-1' is not a weight; a finite number >= 0 is"));
  EXPECT_THAT(train("w_absent", "weight: \"weight\"", [](size_t) { return "1"; }), HasSubstr("weight"));
}

TEST_F(TrainerTest, AFeatureOfOneValueAndLongHistoriesAreInOrder) {
  std::string history = "1";
  for (int i = 1; i < 10'000; ++i) absl::StrAppend(&history, "^", i % 300);
  Write("log/long.csv", WeightedLog(
                            600, [](size_t) { return "1"; }, [&](size_t r) { return r % 10 == 0 ? history : "1"; }));
  // account_days is 5 in every row; 50 items of a history are kept by default.
  for (const std::string length : {"", "max_length: 10000 "}) {
    std::string config = std::string(kModel) + kStages;
    config.replace(config.find("train: \"train.csv\""), 18, "train: \"long.csv\"");
    config.replace(config.find("share_embedding"), 0, length);
    const TrainOptions options = Options("long", config);
    ASSERT_TRUE(Train(options).ok()) << length;
    const absl::StatusOr<Checkpoint> checkpoint = ReadCheckpoint(options.output_dir + "/checkpoint");
    ASSERT_TRUE(checkpoint.ok());
    for (const float weight : checkpoint->weights) ASSERT_TRUE(std::isfinite(weight));
  }
}

TEST_F(TrainerTest, AValidationLogOfOneClassNeedsLogloss) {
  std::string log = "label,request_id,user_id,hist_items,item_id,price,account_days\n";
  for (int r = 0; r < 100; ++r) log += "0,1,u1,1,1,2,1\n";
  Write("log/negative.csv", log);
  std::string config = std::string(kModel) + kStages;
  config.replace(config.find("valid: \"valid.csv\""), 18, "valid: \"negative.csv\"");
  const absl::Status status = Train(Options("one_class", config));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("gives no AUC: all its labels are the same"));
  EXPECT_THAT(std::string(Train(Options("one_class_gauc", "monitor: GAUC " + config)).message()),
              HasSubstr("gives no GAUC: no group holds both labels"));
  EXPECT_TRUE(Train(Options("one_class_logloss", "monitor: LOGLOSS " + config)).ok());
}

// A day later: half of the items are new ones. Old ids keep their rows and weights, new ones follow behind them.
TEST_F(TrainerTest, AWarmStartGoesOnFromTheOldModel) {
  const TrainOptions first = Options("day1");
  ASSERT_TRUE(Train(first).ok());
  const auto old = ReadCheckpoint(first.output_dir + "/checkpoint");
  ASSERT_TRUE(old.ok()) << old.status();

  std::istringstream log(Read(Directory() + "/log/train.csv"));
  std::string line, day2;
  std::getline(log, line);
  day2 = line + "\n";
  std::vector<std::string> header = absl::StrSplit(line, ',');
  const size_t item = static_cast<size_t>(std::find(header.begin(), header.end(), "item_id") - header.begin());
  for (size_t row = 0; std::getline(log, line); ++row) {
    std::vector<std::string> cells = absl::StrSplit(line, ',');
    if (row % 2 == 0) cells[item] = absl::StrCat("9", cells[item]);
    day2 += absl::StrJoin(cells, ",") + "\n";
  }
  std::filesystem::create_directories(Directory() + "/day2_log");
  Write("day2_log/train.csv", day2);
  for (const char* part : {"valid.csv", "test.csv"}) {
    std::filesystem::copy_file(Directory() + "/log/" + part, Directory() + "/day2_log/" + part,
                               std::filesystem::copy_options::overwrite_existing);
  }
  // Nothing learned: what is written is what was copied.
  std::string config = std::string(kModel) +
                       "stages { name: 'idle' epochs: 1 train { group: HEAD learning_rate: 1e-9 } "
                       "min_learning_rate: 0 }";
  TrainOptions second = Options("day2", config);
  second.data_dir = Directory() + "/day2_log";
  second.warm_start = first.output_dir + "/checkpoint";
  ASSERT_TRUE(Train(second).ok());
  const auto grown = ReadCheckpoint(second.output_dir + "/checkpoint");
  ASSERT_TRUE(grown.ok()) << grown.status();
  const auto old_spec = ModelSpec::Create(old->config.model()), spec = ModelSpec::Create(grown->config.model());
  ASSERT_TRUE(old_spec.ok() && spec.ok());
  size_t grown_tables = 0;
  for (size_t t = 0; t < spec->tables().size(); ++t) {
    const VocabularyIds &was = old->vocabularies[t], &is = grown->vocabularies[t];
    ASSERT_GE(is.size(), was.size());
    grown_tables += is.size() > was.size();
    EXPECT_TRUE(std::equal(was.int64s.begin(), was.int64s.end(), is.int64s.begin()));
    EXPECT_TRUE(std::equal(was.strings.begin(), was.strings.end(), is.strings.begin()));
  }
  EXPECT_EQ(grown_tables, 1u);  // the items'
  const auto old_registry = TensorRegistry::ForTraining(*old_spec, old->TableRows(*old_spec));
  const auto registry = TensorRegistry::ForTraining(*spec, grown->TableRows(*spec));
  for (size_t i = 0; i < registry.tensors().size(); ++i) {
    const TensorSpec &from = old_registry.tensors()[i], &to = registry.tensors()[i];
    if (to.group == TensorGroup::kHead) continue;
    EXPECT_TRUE(
        std::equal(&old->weights[from.offset], &old->weights[from.offset] + from.size, &grown->weights[to.offset]))
        << to.name;
  }
  EXPECT_NEAR(grown->metrics.at("test.auc"), old->metrics.at("test.auc"), 1e-6);
}

TEST_F(TrainerTest, AWarmStartServesNoExpertsThatItsLastStageLeftOut) {
  const TrainOptions first = Options("with_experts");
  ASSERT_TRUE(Train(first).ok());
  TrainOptions second = Options("without", std::string(kModel) +
                                               "stages { name: 'alone' experts: false epochs: 1 "
                                               "train { group: HEAD learning_rate: 1e-3 } }");
  second.warm_start = first.output_dir + "/checkpoint";
  const absl::Status status = Train(second);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("the last stage, 'alone', has them off"));
}

// A table's rows go over where they stand for the same ids or numbers in both models, and only there.
TEST_F(TrainerTest, AWarmStartCopiesNoRowsThatMeanSomethingElse) {
  std::string config =
      std::string(kModel) + "stages { name: 'one' epochs: 1 train { group: HEAD learning_rate: 1e-3 } }";
  const auto change = [&config](const std::string& from, const std::string& to) {
    std::string changed = config;
    EXPECT_NE(changed.find(from), std::string::npos) << from;
    changed.replace(changed.find(from), from.size(), to);
    return changed;
  };
  config = change("id_type: STRING embedding_width: 4",
                  "id_type: STRING embedding_width: 4 vocabulary { hash_buckets: 50 }");
  config = change("embedding_width: 2 numeric { transform: LOG1P }",
                  "embedding_width: 2 numeric { transform: QUANTILE buckets: 9 }");
  config = change("network {", "network { linear: true");
  const TrainOptions first = Options("warm_rows", config);
  ASSERT_TRUE(Train(first).ok());
  const absl::StatusOr<WarmStart> warm_start = WarmStart::Read(first.output_dir + "/checkpoint");
  ASSERT_TRUE(warm_start.ok()) << warm_start.status();

  const auto fresh = [&](const std::string& changed) {
    v1::TrainingConfig training;
    Write("warm_rows_next.textproto", changed);
    EXPECT_EQ(ReadTrainingConfig(Directory() + "/warm_rows_next.textproto", &training), absl::OkStatus());
    const auto spec = ModelSpec::Create(training.model());
    LogStatistics statistics;
    statistics.vocabularies.resize(spec->tables().size());
    statistics.standardise.resize(spec->features().size());
    statistics.boundaries.resize(spec->features().size());
    for (size_t f = 0; f < spec->features().size(); ++f) {
      const FeatureSpec& feature = spec->features()[f];
      if (feature.is_bucketed()) statistics.boundaries[f].resize(spec->tables()[feature.table].buckets - 1);
    }
    for (size_t t = 0; t < spec->tables().size(); ++t) {
      const TableSpec& table = spec->tables()[t];
      for (int64_t id = 1'000'000; table.has_vocabulary() && id < 1'000'100; ++id) {
        VocabularyIds& ids = statistics.vocabularies[t];
        if (table.id_type == v1::Feature::INT64) {
          ids.int64s.push_back(id);
        } else {
          ids.strings.push_back(absl::StrCat(id));
        }
      }
    }
    warm_start->Grow(*spec, &statistics);
    const auto registry = TensorRegistry::ForTraining(*spec, TableRows(*spec, statistics.vocabularies));
    std::vector<float> weights(registry.size());
    std::vector<std::string> names = warm_start->CopyWeights(*spec, registry, weights.data()).fresh;
    std::erase_if(names,
                  [](const std::string& name) { return name.find(".weight") == std::string::npos || name[0] == 'b'; });
    return names;
  };
  EXPECT_THAT(fresh(config), IsEmpty());
  const std::vector<std::string> user = {"embedding.user_id.weight", "linear.user_id.weight"};
  EXPECT_EQ(fresh(change("hash_buckets: 50", "hash_buckets: 80")), user);
  EXPECT_EQ(fresh(change("vocabulary { hash_buckets: 50 }", "")), user);
  const std::vector<std::string> price = {"embedding.price.weight", "linear.price.weight"};
  EXPECT_EQ(fresh(change("buckets: 9 }", "buckets: 12 }")), price);
  // A number's one weight in the linear term is no table.
  EXPECT_EQ(fresh(change(
                "kind: NUMERIC scope: CONTEXT\n             numeric { transform: STANDARDISE missing_indicator: true }",
                "kind: CATEGORICAL scope: CONTEXT id_type: INT64 embedding_width: 2")),
            (std::vector<std::string>{"embedding.account_days.weight", "linear.account_days.weight"}));
  // Ids of the other type are none of the old ones.
  std::string strings =
      change("kind: SEQUENCE scope: CONTEXT id_type: INT64", "kind: SEQUENCE scope: CONTEXT id_type: STRING");
  strings.replace(strings.find("scope: CANDIDATE id_type: INT64"), 31, "scope: CANDIDATE id_type: STRING");
  EXPECT_EQ(fresh(strings), (std::vector<std::string>{"embedding.item_id.weight", "linear.hist_items.weight",
                                                      "linear.item_id.weight"}));
}

// What the first block multiplies with must be what it was trained on; the blocks behind it go on.
TEST_F(TrainerTest, AWarmStartBeginsTheFirstBlockAnewWhenFeaturesChangePlaces) {
  const TrainOptions first = Options(
      "warm_order", std::string(kModel) + "stages { name: 'one' epochs: 1 train { group: HEAD learning_rate: 1e-3 } }");
  ASSERT_TRUE(Train(first).ok());
  const absl::StatusOr<WarmStart> warm_start = WarmStart::Read(first.output_dir + "/checkpoint");
  ASSERT_TRUE(warm_start.ok()) << warm_start.status();
  const auto fresh = [&](const std::string& from, const std::string& to) {
    std::string config = kModel;
    config.replace(config.find(from), from.size(), to);
    v1::TrainingConfig training;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(config, &training));
    const auto spec = ModelSpec::Create(training.model());
    const auto old = ReadCheckpoint(first.output_dir + "/checkpoint");
    const auto registry = TensorRegistry::ForTraining(*spec, old->TableRows(*spec));
    std::vector<float> weights(registry.size());
    return warm_start->CopyWeights(*spec, registry, weights.data()).fresh;
  };
  EXPECT_THAT(fresh("id: 3", "id: 3"), IsEmpty());
  // The user and the mean of the history, each four wide, in the other order.
  const std::string user =
                        "  features { id: 1 name: \"user_id\" kind: CATEGORICAL scope: CONTEXT id_type: STRING "
                        "embedding_width: 4 }\n",
                    history =
                        "  features { id: 2 name: \"hist_items\" kind: SEQUENCE scope: CONTEXT id_type: INT64 "
                        "share_embedding: \"item_id\" }\n";
  const std::vector<std::string> anew = fresh(user + history, history + user);
  EXPECT_THAT(anew, testing::Contains("blocks.0.base.weight"));
  EXPECT_THAT(anew, testing::Each(testing::StartsWith("blocks.0.")));
}

// Negatives thinned out to a quarter: the trained logit is too high by ln 4, the served one is not.
TEST_F(TrainerTest, ThinnedNegativesAreCorrectedInTheServedBias) {
  std::istringstream log(Read(Directory() + "/log/train.csv"));
  std::string line, thin;
  std::getline(log, line);
  thin = line + "\n";
  size_t negatives = 0;
  while (std::getline(log, line)) {
    if (line[0] == '1' || ++negatives % 4 == 0) thin += line + "\n";
  }
  std::filesystem::create_directories(Directory() + "/thin_log");
  Write("thin_log/train.csv", thin);
  for (const char* part : {"valid.csv", "test.csv"}) {
    std::filesystem::copy_file(Directory() + "/log/" + part, Directory() + "/thin_log/" + part,
                               std::filesystem::copy_options::overwrite_existing);
  }
  const auto logloss = [&](const std::string& name, const std::string& data) {
    std::string config = std::string(kModel) + kStages;
    config.insert(config.find("group_by:"), data);
    TrainOptions options = Options(name, config);
    options.data_dir = Directory() + "/thin_log";
    EXPECT_TRUE(Train(options).ok());
    const auto checkpoint = ReadCheckpoint(options.output_dir + "/checkpoint");
    EXPECT_TRUE(checkpoint.ok());
    // What evaluates the checkpoint needs no word of it.
    EvaluateOptions evaluate;
    evaluate.checkpoint = options.output_dir + "/checkpoint";
    evaluate.logs = {options.data_dir + "/test.csv"};
    evaluate.report = options.output_dir + "/report.json";
    EXPECT_TRUE(EvaluateLog(evaluate).ok());
    EXPECT_NEAR(Json::parse(Read(evaluate.report)).at("logloss").get<double>(), checkpoint->metrics.at("test.logloss"),
                1e-6);
    return checkpoint->metrics.at("test.logloss");
  };
  EXPECT_LT(logloss("corrected", "negative_keep_rate: 0.25 "), logloss("uncorrected", "") - 0.05);
}

TEST_F(TrainerTest, BadLogsAreRefusedWithTheirLine) {
  const std::string header = "label,request_id,user_id,hist_items,item_id,price,account_days\n";
  const std::string row = "1,7,u1,1^2,3,9.5,10\n";
  const std::string other = "0,7,u1,1^2,4,9.5,\n";
  const struct {
    std::string name, log, message;
  } cases[] = {
      {"missing_column", "label,request_id,user_id,item_id,price,account_days\n", "hist_items"},
      {"bad_label", header + row + "2,7,u1,,3,1,1\n", "bad_label.csv:3: column 'label': '2'"},
      {"bad_id", header + row + "1,7,u1,1^x,3,1,1\n", "bad_id.csv:3: column 'hist_items'"},
      {"bad_number", header + row + "1,7,u1,1,3,nan,1\n", "bad_number.csv:3: column 'price': 'nan'"},
      {"infinite", header + row + other + "1,7,u1,1,3,-inf,1\n", "infinite.csv:4: column 'price': '-inf'"},
      {"too_large", header + row + "1,7,u1,1,3,1e39,1\n", "too_large.csv:3: column 'price': '1e39'"},
      {"all_positive", header + row + row + row, "every training label is 1"},
      {"short_row", header + row + "1,7,u1\n", "short_row.csv:3"},
      {"nul_byte", header + row + std::string("1,7,u\0,1,3,1,1\n", 15), "nul_byte.csv:3"},
      {"no_rows", header, "no rows"},
      {"all_negative", header + other + other + other, "every training label is 0"},
      {"one_row", header + row, "one training row"},
  };
  for (const auto& c : cases) {
    const absl::Status status = TrainOn(c.name, c.log);
    EXPECT_FALSE(status.ok()) << c.name;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message)) << c.name;
    EXPECT_EQ(std::string(status.message()).find('\n'), std::string::npos) << c.name;
    EXPECT_FALSE(std::filesystem::exists(Directory() + "/" + c.name + "/checkpoint")) << c.name;
  }
}

}  // namespace
}  // namespace hilomoe
