// Whole training runs on a small generated log: what the tests of them share.
#ifndef HILOMOE_TESTS_TOOLS_TRAIN_TRAINER_FIXTURE_H_
#define HILOMOE_TESTS_TOOLS_TRAIN_TRAINER_FIXTURE_H_

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/tools/train/tiny_log.h"
#include "tools/train/trainer.h"

namespace hilomoe {

inline constexpr char kModel[] = R"(
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

inline constexpr char kStages[] = R"(
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

inline std::string Read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  EXPECT_TRUE(file.good()) << path;
  return text.str();
}

using Json = nlohmann::ordered_json;

// The lines of a run's metrics.jsonl, without what depends on the clock or on interruptions.
inline std::vector<Json> Timeless(const std::string& run) {
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
  static void SetUpTestSuite() { GenerateTinyLog(Directory() + "/log"); }

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

inline TrainOptions StoppedAfterOneStep(TrainOptions options) {
  options.stop_requested = [asked = 0]() mutable { return asked++ > 0; };
  return options;
}

}  // namespace hilomoe

#endif  // HILOMOE_TESTS_TOOLS_TRAIN_TRAINER_FIXTURE_H_
