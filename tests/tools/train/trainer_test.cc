// Whole training runs on a small generated log.
#include "tools/train/trainer.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/checkpoint.h"
#include "nlohmann/json.hpp"
#include "tools/train/evaluate_log.h"
#include "tools/train/generate.h"

namespace hilomoe {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr char kModel[] = R"(
model {
  features { id: 1 name: "user_id" kind: CATEGORICAL scope: CONTEXT id_type: STRING embedding_width: 4 }
  features { id: 2 name: "hist_items" kind: SEQUENCE scope: CONTEXT id_type: INT64 share_embedding: "item_id" }
  features { id: 3 name: "item_id" kind: CATEGORICAL scope: CANDIDATE id_type: INT64 embedding_width: 4 }
  features { id: 4 name: "price" kind: NUMERIC scope: CANDIDATE embedding_width: 2 numeric { transform: LOG1P } }
  features { id: 5 name: "account_days" kind: NUMERIC scope: CONTEXT
             numeric { transform: STANDARDISE missing_indicator: true } }
  network {
    blocks { width: 12 dropout: 0.1 experts { layers: 2 experts_per_layer: 4 } }
    blocks { width: 8 experts { layers: 2 experts_per_layer: 4 top_k: 2 } }
  }
}
data { train: "train.csv" valid: "valid.csv" test: "test.csv" group_by: "request_id" }
optimizer { embedding_l2: 1e-5 embedding_init_deviation: 0.05 }
losses { load_balance: 0.01 router_z: 0.001 diversity: 0.001 ramp_steps: 10 }
batch_size: 256
)";

constexpr char kStages[] = R"(
stages { name: "backbone" experts: false epochs: 2 evaluations_per_epoch: 2
  train { group: EMBEDDING learning_rate: 5e-3 }
  train { group: BACKBONE learning_rate: 5e-3 }
  train { group: HEAD learning_rate: 5e-3 } }
stages { name: "experts" epochs: 1
  train { group: EXPERT learning_rate: 3e-3 }
  train { group: ROUTER learning_rate: 3e-3 } }
stages { name: "joint" epochs: 1
  train { group: EMBEDDING learning_rate: 1e-3 }
  train { group: BACKBONE learning_rate: 1e-3 }
  train { group: EXPERT learning_rate: 1e-3 }
  train { group: ROUTER learning_rate: 1e-3 }
  train { group: HEAD learning_rate: 1e-3 } }
)";

std::string Read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  EXPECT_TRUE(file.good()) << path;
  return text.str();
}

using Json = nlohmann::ordered_json;

// The lines of a run's metrics.jsonl, without what depends on the clock or on interruptions.
std::vector<Json> Timeless(const std::string& run) {
  std::vector<Json> lines;
  std::istringstream text(Read(run + "/metrics.jsonl"));
  for (std::string line; std::getline(text, line);) {
    Json json = Json::parse(line, nullptr, false);
    EXPECT_FALSE(json.is_discarded()) << line;
    for (const char* key : {"created", "seconds", "rows_per_s"}) json.erase(key);
    if (json.at("event") != "resume") lines.push_back(std::move(json));
  }
  return lines;
}

class TrainerTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    GenerateOptions options;
    options.output_dir = Directory() + "/log";
    options.compression = Compression::kNone;
    options.rows = 12'000;
    options.users = 60;
    options.items = 40;
    GenerateReport report;
    ASSERT_TRUE(GenerateLog(options, &report).ok());
  }

  static std::string Directory() { return testing::TempDir() + "trainer_test"; }
  static void Write(const std::string& name, const std::string& text) {
    std::ofstream(Directory() + "/" + name, std::ios::binary) << text;
  }
  static TrainOptions Options(const std::string& name, const std::string& config = std::string(kModel) + kStages) {
    Write(name + ".textproto", config);
    TrainOptions options;
    options.config_path = Directory() + "/" + name + ".textproto";
    options.data_dir = Directory() + "/log";
    options.output_dir = Directory() + "/" + name;
    options.threads = 2;
    std::filesystem::remove_all(options.output_dir);
    return options;
  }
  // A run over a log with the given lines instead of the generated one.
  static absl::Status TrainOn(const std::string& name, const std::string& log) {
    Write(name + ".csv", log);
    TrainOptions options = Options(name);
    std::string config = Read(options.config_path);
    const size_t at = config.find("train: \"train.csv\"");
    config.replace(at, 18, "train: \"../" + name + ".csv\"");
    Write(name + ".textproto", config);
    return Train(options);
  }
};

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

TrainOptions StoppedAfterOneStep(TrainOptions options) {
  options.stop_requested = [asked = 0]() mutable { return asked++ > 0; };
  return options;
}

TEST_F(TrainerTest, AResumedRunEqualsAnUninterruptedOne) {
  // Batches enough that a line of progress is of more than one of them: interrupted in its middle, it must not forget.
  std::string config = std::string(kModel) + kStages;
  config.replace(config.find("batch_size: 256"), 15, "batch_size: 200");
  const TrainOptions whole = Options("whole", config);
  ASSERT_TRUE(Train(whole).ok());
  TrainOptions parts = Options("parts", config);
  // Stopped after every single step: the worst that can happen to a run.
  absl::Status status = Train(StoppedAfterOneStep(parts));
  int steps = 1;
  const std::string log = parts.output_dir + "/metrics.jsonl";
  while (absl::IsCancelled(status) && steps < 1000) {
    // What a kill after the save may leave behind: lines of steps that are repeated, the last one torn.
    std::ofstream(log, std::ios::binary | std::ios::app) << "{\"event\":\"progress\",\"step\":1}\n{\"event\":\"pro";
    parts.resume = true;
    parts.threads = 1;  // the saved run's number holds
    status = Train(StoppedAfterOneStep(parts));
    ++steps;
  }
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_GT(steps, 100);
  EXPECT_EQ(Read(whole.output_dir + "/checkpoint/weights.safetensors"),
            Read(parts.output_dir + "/checkpoint/weights.safetensors"));
  const std::vector<Json> lines = Timeless(whole.output_dir), resumed = Timeless(parts.output_dir);
  ASSERT_EQ(lines.size(), resumed.size());
  for (size_t i = 0; i < lines.size(); ++i) EXPECT_EQ(lines[i], resumed[i]) << "line " << i + 1;
}

TEST_F(TrainerTest, AResumedRunWhoseRecordIsGoneSaysSo) {
  TrainOptions options = Options("recordless");
  ASSERT_TRUE(absl::IsCancelled(Train(StoppedAfterOneStep(options))));
  std::filesystem::remove(options.output_dir + "/metrics.jsonl");
  options.resume = true;
  ASSERT_TRUE(Train(options).ok());
  const std::vector<Json> lines = Timeless(options.output_dir);
  EXPECT_EQ(lines.front().at("event"), "run");
  EXPECT_EQ(lines.front().at("earlier_lost"), true);
  EXPECT_EQ(lines.back().at("event"), "end");
  EXPECT_THAT(Read(options.output_dir + "/report.html"), HasSubstr("was lost"));
}

TEST_F(TrainerTest, AResumedRunEqualsAnUninterruptedOneInSeveralWindows) {
  GenerateOptions generate;
  generate.output_dir = Directory() + "/large_log";
  generate.compression = Compression::kNone;
  generate.rows = 60'000;
  GenerateReport report;
  ASSERT_TRUE(GenerateLog(generate, &report).ok());
  std::string config = std::string(kModel) + kStages;
  config.replace(config.find("batch_size: 256"), 15, "batch_size: 2500");
  config.replace(config.find("group_by:"), 9, "shuffle_buffer_mib: 1 group_by:");
  TrainOptions whole = Options("whole_windows", config), parts = Options("parts_windows", config);
  whole.data_dir = parts.data_dir = generate.output_dir;
  ASSERT_TRUE(Train(whole).ok());
  absl::Status status = Train(StoppedAfterOneStep(parts));
  for (int steps = 1; absl::IsCancelled(status) && steps < 1000; ++steps) {
    parts.resume = true;
    status = Train(StoppedAfterOneStep(parts));
  }
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(Read(whole.output_dir + "/checkpoint/weights.safetensors"),
            Read(parts.output_dir + "/checkpoint/weights.safetensors"));
}

TEST_F(TrainerTest, ARunStoppedBeforeItsFirstStepResumes) {
  TrainOptions options = Options("not_begun");
  options.stop_requested = [] { return true; };
  ASSERT_TRUE(absl::IsCancelled(Train(options)));
  options.stop_requested = nullptr;
  options.resume = true;
  EXPECT_TRUE(Train(options).ok());
}

TEST_F(TrainerTest, ResumeRefusesOtherLogs) {
  std::filesystem::copy_file(Directory() + "/log/valid.csv", Directory() + "/log/other_valid.csv",
                             std::filesystem::copy_options::overwrite_existing);
  std::string config = std::string(kModel) + kStages;
  config.replace(config.find("valid: \"valid.csv\""), 18, "valid: \"other_valid.csv\"");
  TrainOptions options = Options("other_logs", config);
  ASSERT_TRUE(absl::IsCancelled(Train(StoppedAfterOneStep(options))));
  // Of the same model: one row more.
  std::ofstream(Directory() + "/log/other_valid.csv", std::ios::app) << "1,1,u1,,,,,,1,1,,1,1\n";
  options.resume = true;
  const absl::Status status = Train(options);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("other training or validation logs"));
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

TEST_F(TrainerTest, ResumeRefusesAnotherConfig) {
  TrainOptions options = Options("changed");
  ASSERT_TRUE(absl::IsCancelled(Train(StoppedAfterOneStep(options))));
  Write("changed.textproto", std::string(kModel) + "seed: 9" + kStages);
  options.resume = true;
  const absl::Status status = Train(options);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("another config"));
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
  EXPECT_EQ(Read(options.output_dir + "/checkpoint/weights.safetensors"), before);
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
  const Json end = Timeless(options.output_dir).back();
  ASSERT_EQ(end.at("event"), "end");
  EXPECT_EQ(end.at("step").get<size_t>(), rows % 256 == 1 ? rows / 256 : (rows + 255) / 256);
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

TEST_F(TrainerTest, BadConfigsAreRefusedWithLineAndField) {
  const struct {
    std::string name, from, to, message;
  } cases[] = {
      {"unknown_field", "batch_size: 256", "batch_sise: 256", ":17:"},
      {"bad_rate", "learning_rate: 3e-3", "learning_rate: -1", "stages[1].train[0].learning_rate"},
      {"bad_size", "width: 12", "width: 0", ":10: model.network.blocks[0].width"},
      {"top_1", "top_k: 2", "top_k: 1", ":11: model.network.blocks[1].experts.top_k"},
      {"no_valid", "valid: \"valid.csv\"", "", "data.valid"},
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
