// What a training run leaves behind: metrics.jsonl and report.html.
#include <filesystem>
#include <fstream>
#include <numeric>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/checkpoint.h"
#include "tests/model/test_files.h"
#include "tests/tools/report/well_formed.h"
#include "tests/tools/train/tiny_log.h"
#include "tools/train/evidence.h"
#include "tools/train/run_record.h"
#include "tools/train/run_report.h"
#include "tools/train/trainer.h"

namespace hilomoe {
namespace {

using testing::HasSubstr;
using testing::Not;
using Json = RunRecord::Json;

constexpr char kConfig[] = R"(
model {
  features { id: 1 name: "user_id" kind: CATEGORICAL scope: CONTEXT id_type: STRING embedding_width: 4 }
  features { id: 2 name: "item_id" kind: CATEGORICAL scope: CANDIDATE id_type: INT64 embedding_width: 4 }
  network {
    blocks { width: 8 experts { layers: 2 experts_per_layer: 4 } }
    blocks { width: 8 }
    blocks { width: 8 experts { layers: 1 experts_per_layer: 9 top_k: 2 } }
    cross { experts { layers: 1 experts_per_layer: 3 } }
  }
}
data { train: "train.csv" valid: "valid.csv" test: "test.csv" group_by: "request_id"
       slices: "device" slices: "user_id" }
optimizer { embedding_init_deviation: 0.05 }
batch_size: 256
stages { name: "base <&>" experts: false epochs: 2 evaluations_per_epoch: 2
  train { group: EMBEDDING learning_rate: 1e-3 }
  train { group: BACKBONE learning_rate: 1e-3 }
  train { group: HEAD learning_rate: 1e-3 } }
stages { name: "experts" epochs: 2 patience: 1
  train { group: EMBEDDING learning_rate: 5e-3 }
  train { group: EXPERT learning_rate: 3e-3 }
  train { group: ROUTER learning_rate: 3e-3 } }
)";

class EvidenceTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    directory_ = new TestDirectory;
    GenerateTinyLog(*directory_ / "log");
    WriteBytes(*directory_ / "config.textproto", kConfig);
    TrainOptions train;
    train.config_path = *directory_ / "config.textproto";
    train.data_dir = *directory_ / "log";
    train.output_dir = Run();
    train.threads = 2;
    testing::internal::CaptureStderr();
    const absl::Status status = Train(train);
    printed_ = testing::internal::GetCapturedStderr();
    ASSERT_TRUE(status.ok()) << status;
  }
  static void TearDownTestSuite() {
    delete directory_;
    directory_ = nullptr;
  }
  static std::string Run() { return *directory_ / "run"; }
  static RunRecord Record() {
    absl::StatusOr<RunRecord> record = ReadRunRecord(Run() + "/metrics.jsonl");
    EXPECT_TRUE(record.ok()) << record.status();
    return *std::move(record);
  }
  // The page that this text of a metrics.jsonl gives.
  static absl::StatusOr<std::string> Page(const std::string& metrics) {
    const TestDirectory directory;
    WriteBytes(directory / "metrics.jsonl", metrics);
    const absl::Status status = WriteRunReport(directory.path(), directory / "page.html");
    if (!status.ok()) {
      EXPECT_FALSE(std::filesystem::exists(directory / "page.html"));
      return status;
    }
    return ReadBytes(directory / "page.html");
  }

  static TestDirectory* directory_;
  static std::string printed_;  // by the training, to stderr
};
TestDirectory* EvidenceTest::directory_ = nullptr;
std::string EvidenceTest::printed_;

TEST_F(EvidenceTest, TheReportIsDrawnFromTheRecordAlone) {
  const std::string page = ReadBytes(Run() + "/report.html");
  const absl::StatusOr<std::string> again = Page(ReadBytes(Run() + "/metrics.jsonl"));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(*again, page);
  EXPECT_EQ(MarkupError(page), "");
  EXPECT_EQ(LoadedFromElsewhere(page), "");
  for (const char* part : {"id=\"routing\"", "id=\"curves\"", "id=\"calibration\"", "id=\"experts\"", "id=\"slices\"",
                           "id=\"stages\"", "id=\"run\"", "base &lt;&amp;&gt;", "finished"}) {
    EXPECT_THAT(page, HasSubstr(part));
  }
}

TEST_F(EvidenceTest, EveryMomentOfARunHasAReport) {
  const std::string metrics = ReadBytes(Run() + "/metrics.jsonl");
  size_t pages = 0;
  for (size_t end = metrics.find('\n'); end != std::string::npos; end = metrics.find('\n', end + 1), ++pages) {
    // With half of the next line, as a reader may find it.
    const absl::StatusOr<std::string> page = Page(metrics.substr(0, end + 1 + (metrics.size() - end) / 50));
    ASSERT_TRUE(page.ok()) << page.status() << " after " << pages + 1 << " lines";
    ASSERT_EQ(MarkupError(*page), "") << "after " << pages + 1 << " lines";
  }
  EXPECT_GT(pages, 50U);
}

// Cross layers too have a name of their own, and the tensors of the checkpoint begin with the same.
TEST_F(EvidenceTest, BlocksHaveTheirNamesEverywhere) {
  const RunRecord record = Record();
  const Json& utilisation = record.Final("test")->at("utilisation");
  ASSERT_EQ(utilisation.size(), 3U);
  const std::string page = ReadBytes(Run() + "/report.html");
  const char* const names[] = {"blocks.0", "blocks.2", "cross.0"};
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(utilisation.at(i).at("block"), names[i]);
    EXPECT_THAT(page, HasSubstr(absl::StrCat("<h3>", names[i], "</h3>")));
    EXPECT_THAT(page, HasSubstr(absl::StrCat(">", names[i], "</text>")));  // in the key of the entropies
    EXPECT_THAT(printed_, HasSubstr(absl::StrCat("\n  ", names[i], " layer 0: entropy")));
  }
  EXPECT_THAT(page, Not(HasSubstr("lock 3")));
  // A record of format 1 has numbers.
  const std::string old = absl::StrReplaceAll(ReadBytes(Run() + "/metrics.jsonl"), {{"\"cross.0\"", "3"}});
  const absl::StatusOr<std::string> old_page = Page(old);
  ASSERT_TRUE(old_page.ok()) << old_page.status();
  EXPECT_THAT(*old_page, HasSubstr("<h3>block 3</h3>"));
}

TEST_F(EvidenceTest, TheRecordAgreesWithTheCheckpoint) {
  const RunRecord record = Record();
  const absl::StatusOr<Checkpoint> checkpoint = ReadCheckpoint(Run() + "/checkpoint");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const Json *test = record.Final("test"), *valid = record.Final("valid");
  ASSERT_TRUE(test != nullptr && valid != nullptr);
  EXPECT_EQ(test->at("metrics").at("auc"), checkpoint->metrics.at("test.auc"));
  EXPECT_EQ(test->at("metrics").at("logloss"), checkpoint->metrics.at("test.logloss"));
  EXPECT_EQ(valid->at("metrics").at("gauc"), checkpoint->metrics.at("valid.gauc"));
  EXPECT_EQ(record.run.at("parameters"), checkpoint->weights.size());
  // alpha, tau [L], c [L K], V [L K, 8], U [L K, 8] of three blocks.
  EXPECT_EQ(record.run.at("parameters").get<int>() - record.run.at("parameters_without_experts").get<int>(),
            (1 + 2 + 8 + 2 * 8 * 8) + (1 + 1 + 9 + 2 * 9 * 8) + (1 + 1 + 3 + 2 * 3 * 8));
  EXPECT_EQ(record.run.at("rows").at("valid"), valid->at("metrics").at("rows"));
  EXPECT_EQ(record.run.at("monitor"), "auc");
  EXPECT_EQ(record.run.at("threads"), 2);
  EXPECT_FALSE(record.end.is_null());
}

TEST_F(EvidenceTest, ProgressCoversEveryBatchOnce) {
  const RunRecord record = Record();
  const size_t rows = record.run.at("rows").at("train").get<size_t>();
  const size_t batches = (rows + 255) / 256;
  size_t step = 0;
  for (const Json& event : record.progress) {
    EXPECT_GT(event.at("step").get<size_t>(), step);
    EXPECT_LE(event.at("step").get<size_t>() - step, batches / 20);
    step = event.at("step").get<size_t>();
    EXPECT_GT(event.at("loss").get<double>(), 0.1);
    EXPECT_LT(event.at("loss").get<double>(), 1);
    EXPECT_GT(event.at("gradient_norm").get<double>(), 0);
    EXPECT_GE(event.at("gradient_norm_max").get<double>(), event.at("gradient_norm").get<double>());
    const bool first_stage = event.at("stage") == 0;
    EXPECT_EQ(event.at("learning_rates").contains("head"), first_stage);
    EXPECT_EQ(event.at("learning_rates").contains("router"), !first_stage);
  }
  EXPECT_EQ(step, record.end.at("step").get<size_t>());
  EXPECT_EQ(step % batches, 0U);
  ASSERT_EQ(record.stage_ends.size(), 2U);
  EXPECT_EQ(record.stage_ends[0].at("step"), 2 * batches);
  EXPECT_EQ(record.stage_ends[0].at("epoch"), 2);
  // Before the first step, and twice an epoch.
  EXPECT_EQ(record.evaluations[0].at("epoch"), 0);
  EXPECT_EQ(record.evaluations[0].at("step"), 0);
  EXPECT_EQ(record.evaluations[4].at("step"), 2 * batches);
  EXPECT_EQ(record.evaluations[5].at("stage"), 1);
  EXPECT_TRUE(record.evaluations[0].at("utilisation").empty());
  EXPECT_EQ(record.evaluations[5].at("utilisation").size(), 3U);
}

TEST_F(EvidenceTest, FinalNumbersAddUp) {
  const RunRecord record = Record();
  for (const Json& final : record.finals) {
    const int64_t rows = final.at("metrics").at("rows").get<int64_t>();
    const int64_t positives = final.at("metrics").at("positives").get<int64_t>();
    int64_t bin_rows = 0;
    for (const Json& bin : final.at("calibration").at("bins")) bin_rows += bin.at(0).get<int64_t>();
    EXPECT_EQ(bin_rows, rows);
    const auto up = final.at("histogram").at("positives").get<std::vector<int64_t>>();
    const auto down = final.at("histogram").at("negatives").get<std::vector<int64_t>>();
    EXPECT_EQ(std::accumulate(up.begin(), up.end(), int64_t{0}), positives);
    EXPECT_EQ(std::accumulate(down.begin(), down.end(), int64_t{0}), rows - positives);
    for (const Json& block : final.at("utilisation")) {
      for (const Json& layer : block.at("layers")) {
        const auto scores = layer.at("scores").get<std::vector<double>>();
        EXPECT_NEAR(std::accumulate(scores.begin(), scores.end(), 0.0), 1, 1e-5);
        for (size_t i = 0; i < scores.size(); ++i) {
          const bool dead = scores[i] < kDeadShare / static_cast<double>(scores.size());
          const auto& named = layer.at("dead");
          EXPECT_EQ(std::find(named.begin(), named.end(), Json(i)) != named.end(), dead);
        }
      }
    }
    // Routed alike is another model, but of the same rows.
    EXPECT_EQ(final.at("fixed_routing").at("rows"), rows);
    EXPECT_NE(final.at("fixed_routing").at("logloss"), final.at("metrics").at("logloss"));
    ASSERT_EQ(final.at("slices").size(), 2U);
    for (const Json& slice : final.at("slices")) {
      int64_t slice_rows = slice.at("rest").is_null() ? 0 : slice.at("rest").at("rows").get<int64_t>();
      for (const Json& value : slice.at("values")) slice_rows += value.at("metrics").at("rows").get<int64_t>();
      EXPECT_EQ(slice_rows, rows);
    }
    EXPECT_FALSE(final.at("slices").at(1).at("rest").is_null());
  }
}

TEST_F(EvidenceTest, LabelsFromDataAreEscapedAndDeadExpertsNamed) {
  std::istringstream lines(ReadBytes(Run() + "/metrics.jsonl"));
  std::string changed;
  for (std::string line; std::getline(lines, line);) {
    Json json = Json::parse(line);
    if (json.at("event") == "final") {
      json["slices"][0]["column"] = "<img src=x>";
      json["slices"][0]["values"][0]["value"] = "</th><script>alert('1')</script>\x02";
      json["slices"][0]["values"][1]["value"] = "";
      std::string long_value;
      for (int i = 0; i < 200; ++i) long_value += "ü";
      json["slices"][1]["values"][0]["value"] = long_value;
      json["utilisation"][1]["layers"][0]["dead"] = {0, 7};
    }
    changed += json.dump() + "\n";
  }
  const absl::StatusOr<std::string> page = Page(changed);
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_EQ(MarkupError(*page), "");
  EXPECT_THAT(*page, Not(HasSubstr("<script")));
  EXPECT_THAT(*page, Not(HasSubstr("<img")));
  EXPECT_THAT(*page, HasSubstr("&lt;/th&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;\uFFFD"));
  EXPECT_THAT(*page, HasSubstr("(empty)"));
  EXPECT_THAT(*page, HasSubstr("üü…</th>"));
  EXPECT_THAT(*page, HasSubstr("Dead experts, crossed out: layer 0: expert 0, 7."));
}

// A drop of the learning rates with which nothing was trained any more is none.
TEST_F(EvidenceTest, ADropAtAStagesEndIsNotCounted) {
  const std::string metrics = ReadBytes(Run() + "/metrics.jsonl");
  std::string text = metrics.substr(0, metrics.find('\n') + 1);
  const auto evaluation = [](int step, double factor, bool best) {
    return Json{{"event", "evaluation"},
                {"stage", 0},
                {"epoch", 1},
                {"step", step},
                {"metrics", {{"auc", 0.5}}},
                {"utilisation", Json::array()},
                {"best", best},
                {"rate_factor", factor},
                {"seconds", step}}
               .dump() +
           "\n";
  };
  text += evaluation(0, 1, true) + evaluation(10, 0.1, false) + evaluation(20, 0.01, false);
  const absl::StatusOr<std::string> under_way = Page(text);
  ASSERT_TRUE(under_way.ok()) << under_way.status();
  EXPECT_THAT(*under_way, HasSubstr("<td>3</td><td>2</td><td>20.0</td>"));
  text += R"({"event":"stage_end","stage":0,"epoch":1,"step":20,"kept":true,"metrics":{"auc":0.5},"seconds":20})"
          "\n";
  const absl::StatusOr<std::string> over = Page(text);
  ASSERT_TRUE(over.ok()) << over.status();
  EXPECT_THAT(*over, HasSubstr("<td>3</td><td>1</td><td>20.0</td>"));
}

// Of a run under way, the experts are those of the evaluation whose metrics stand above them.
TEST_F(EvidenceTest, ExpertUseIsOfTheBestEvaluation) {
  std::istringstream lines(ReadBytes(Run() + "/metrics.jsonl"));
  std::string text;
  for (std::string line; std::getline(lines, line);) {
    Json json = Json::parse(line);
    if (json.at("event") == "stage_end" && json.at("stage") == 1) break;
    if (json.at("event") == "evaluation" && json.at("stage") == 1) {
      const bool best = json.at("epoch") == 0;  // the stage's start, and nothing since
      json["best"] = best;
      for (Json& block : json.at("utilisation")) {
        for (Json& layer : block.at("layers")) layer["entropy"] = best ? 0.123 : 0.456;
      }
    }
    text += json.dump() + "\n";
  }
  const absl::StatusOr<std::string> page = Page(text);
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_THAT(*page, HasSubstr("entropy 0.123 of ln"));
  EXPECT_THAT(*page, Not(HasSubstr("entropy 0.456 of ln")));
}

TEST_F(EvidenceTest, ABrokenRecordIsRefused) {
  const std::string metrics = ReadBytes(Run() + "/metrics.jsonl");
  const std::string first = metrics.substr(0, metrics.find('\n') + 1);
  const struct {
    std::string metrics, message;
  } cases[] = {
      {"", "no line about the run"},
      {first.substr(0, 40), "no line about the run"},
      {first + "{\"event\":\n", "metrics.jsonl:2"},
      {first + "[1]\n", "metrics.jsonl:2"},
      {first + "{\"step\":1}\n", "metrics.jsonl:2"},
      {"{\"event\":\"run\"}\n", "is not what training writes"},
      {first + "{\"event\":\"evaluation\",\"stage\":9}\n", "is not what training writes"},
      {first + "{\"event\":\"final\",\"split\":\"test\"}\n", "is not what training writes"},
  };
  for (const auto& c : cases) {
    const absl::Status status = Page(c.metrics).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << c.metrics;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
  }
  EXPECT_TRUE(absl::IsNotFound(WriteRunReport(*directory_ / "nothing", *directory_ / "page.html")));
  // What a later version may add is passed over.
  EXPECT_TRUE(Page(first + "{\"event\":\"novelty\"}\n").ok());
}

}  // namespace
}  // namespace hilomoe
