// Whole comparisons on a small generated log, with hilomoe-train itself as the child.
#include "tools/train/compare.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/safetensors.h"
#include "nlohmann/json.hpp"
#include "tests/model/test_files.h"
#include "tools/common/metrics.h"
#include "tools/train/generate.h"

namespace hilomoe {
namespace {

namespace fs = std::filesystem;
using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;
using Json = nlohmann::json;

constexpr char kConfig[] = R"(
model {
  features { id: 1 name: "user_id" kind: CATEGORICAL scope: CONTEXT id_type: STRING embedding_width: 4 }
  features { id: 2 name: "item_id" kind: CATEGORICAL scope: CANDIDATE id_type: INT64 embedding_width: 4 }
  network { blocks { width: 8 } }
}
data { train: "train.csv" valid: "valid.csv" test: "test.csv" group_by: "request_id" }
optimizer { embedding_init_deviation: 0.05 }
batch_size: 256
stages { name: "all" experts: false epochs: 1
  train { group: EMBEDDING learning_rate: 5e-3 }
  train { group: BACKBONE learning_rate: 5e-3 }
  train { group: HEAD learning_rate: 5e-3 } }
)";

// Learning next to nothing is the worse trial.
constexpr char kComparison[] = R"(
arms { name: "wide" config: "base.textproto"
  overrides { model { network { blocks { width: 16 } } } }
  trials { name: "still" overrides { stages { name: "all" experts: false epochs: 1
    train { group: HEAD learning_rate: 1e-9 } } } }
  trials { name: "good" } }
arms { name: "narrow" config: "base.textproto" control: true }
seeds: 1 seeds: 2 seeds: 3
selection_seeds: 2
judged: "wide"
bootstrap { resamples: 200 }
)";

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

class CompareTest : public testing::Test {
 protected:
  void SetUp() override {
    GenerateOptions options;
    options.output_dir = directory_ / "log";
    options.compression = Compression::kNone;
    options.rows = 6'000;
    options.users = 60;
    options.items = 40;
    GenerateReport report;
    ASSERT_TRUE(GenerateLog(options, &report).ok());
    WriteBytes(directory_ / "base.textproto", kConfig);
  }
  absl::Status Run(const std::string& comparison = kComparison, bool retry_failed = false) {
    WriteBytes(directory_ / "c.textproto", comparison);
    CompareOptions options;
    options.comparison_path = directory_ / "c.textproto";
    options.program = HILOMOE_TRAIN;
    options.data_dir = directory_ / "log";
    options.output_dir = directory_ / "out";
    options.jobs = 2;
    options.retry_failed = retry_failed;
    options.lock_wait_s = 0.3;
    testing::internal::CaptureStdout();
    absl::Status status = Compare(options);
    printed_ = testing::internal::GetCapturedStdout();
    return status;
  }
  Json Result() const { return Json::parse(ReadBytes(directory_ / "out/comparison.json")); }
  bool Exists(const std::string& name) const { return fs::exists(directory_ / name); }
  int Attempts(const std::string& run) const {
    return Json::parse(ReadBytes(directory_ / ("out/" + run + "/run.json"))).at("attempts").get<int>();
  }

  TestDirectory directory_;
  std::string printed_;
};

TEST_F(CompareTest, TheGridFromEndToEnd) {
  const absl::Status status = Run();
  ASSERT_TRUE(status.ok()) << status;
  const Json result = Result();
  const Json& wide = result.at("arms")[0];
  EXPECT_EQ(wide.at("chosen"), "good");
  EXPECT_EQ(wide.at("trials"), 2);
  EXPECT_EQ(wide.at("runs").size(), 5u);  // 2 of the trial that was not chosen, 3 of the other
  EXPECT_EQ(wide.at("test").at("auc").at("n"), 3);
  EXPECT_EQ(wide.at("flops_per_row"), 2 * (8 * 16 + 16));
  EXPECT_EQ(result.at("best_control"), "narrow");
  EXPECT_EQ(result.at("bootstrap").at("unit"), "group");

  // Means and differences again, from the files of the runs.
  double sum[2] = {0, 0};
  const char* const arms[] = {"wide/good", "narrow/1"};
  for (int a = 0; a < 2; ++a) {
    for (int seed = 1; seed <= 3; ++seed) {
      const auto file = Safetensors::Read(
          directory_ / ("out/" + std::string(arms[a]) + "/" + std::to_string(seed) + "/test.safetensors"));
      ASSERT_TRUE(file.ok()) << file.status();
      sum[a] += **ComputeAuc(*file->Floats("scores"), *file->Bytes("labels"));
    }
  }
  EXPECT_NEAR(wide.at("test").at("auc").at("mean").get<double>(), sum[0] / 3, 1e-12);
  ASSERT_EQ(result.at("differences").size(), 3u);
  const Json& auc = result.at("differences")[0];
  EXPECT_EQ(auc.at("metric"), "auc");
  EXPECT_EQ(auc.at("paired_by_seed"), true);
  EXPECT_EQ(auc.at("degrees_of_freedom"), 2);
  EXPECT_NEAR(auc.at("difference").get<double>(), (sum[0] - sum[1]) / 3, 1e-12);
  for (const char* interval : {"interval_over_seeds", "interval_over_rows"}) {
    EXPECT_LT(auc.at(interval)[0].get<double>(), auc.at("difference").get<double>()) << interval;
    EXPECT_GT(auc.at(interval)[1].get<double>(), auc.at("difference").get<double>()) << interval;
  }

  const std::string markdown = ReadBytes(directory_ / "out/comparison.md");
  EXPECT_EQ(printed_, markdown);
  EXPECT_THAT(markdown, HasSubstr("| wide (judged) | 0."));
  EXPECT_THAT(markdown, HasSubstr("different numbers of trials, from 1 ('narrow') to 2 ('wide')"));
  EXPECT_THAT(markdown, HasSubstr("| wide | good |"));
  const std::string html = ReadBytes(directory_ / "out/comparison.html");
  EXPECT_THAT(html, HasSubstr("<th scope=\"row\">wide (judged)</th>"));
  EXPECT_THAT(html, HasSubstr("<svg"));
  EXPECT_THAT(html, Not(HasSubstr("http")));  // self-contained

  // Nothing is done twice.
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(Attempts("wide/good/1"), 1);
  EXPECT_EQ(ReadBytes(directory_ / "out/comparison.md"), markdown);
}

TEST_F(CompareTest, CurvesAreHeldAgainstTheControls) {
  const std::string sizes = R"(
    arms { name: "small" config: "base.textproto" control: true curve: "dense"
      overrides { model { network { blocks { width: 4 } } } } }
    arms { name: "large" config: "base.textproto" control: true curve: "dense"
      overrides { model { network { blocks { width: 32 } } } } })";
  ASSERT_TRUE(
      Run(Replaced(kComparison, "arms { name: \"wide\"", "arms { name: \"wide\" curve: \"ours\"") + sizes).ok());
  const Json result = Result();
  // AUC and gAUC of the one size.
  ASSERT_EQ(result.at("curves").size(), 2u);
  const Json& auc = result.at("curves")[0];
  EXPECT_EQ(auc.at("arm"), "wide");
  EXPECT_EQ(auc.at("control_curve"), "dense");
  EXPECT_EQ(auc.at("metric"), "auc");
  EXPECT_EQ(auc.at("seeds"), 3);
  // FLOPs are 2 (8 W + W): the width alone counts, and 16 is 2 of 3 doublings from 4 to 32.
  const auto mean = [&](size_t arm) { return result.at("arms")[arm].at("test").at("auc").at("mean").get<double>(); };
  EXPECT_NEAR(auc.at("gain_at_equal_flops").get<double>(), mean(0) - (mean(2) + 2 * mean(3)) / 3, 1e-12);
  EXPECT_LT(auc.at("gain_interval")[0].get<double>(), auc.at("gain_at_equal_flops").get<double>());
  EXPECT_THAT(printed_, HasSubstr("| wide | 288 | dense, 3 seeds | AUC | "));
  EXPECT_THAT(ReadBytes(directory_ / "out/comparison.html"), HasSubstr("AUC against FLOPs"));
}

TEST_F(CompareTest, SelectionNeverLooksAtTest) {
  fs::rename(directory_ / "log/test.csv", directory_ / "log/hidden.csv");
  const absl::Status status = Run();
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("test.csv"));
  // Every training has ended and the choice is frozen, although nothing could have been read of test.
  EXPECT_EQ(Json::parse(ReadBytes(directory_ / "out/choice.json")).at("arms").at("wide").at("chosen"), "good");
  EXPECT_TRUE(Exists("out/wide/good/3/checkpoint"));
  fs::rename(directory_ / "log/hidden.csv", directory_ / "log/test.csv");
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(Attempts("wide/good/3"), 1);
  EXPECT_EQ(Attempts("narrow/1/1"), 1);
  EXPECT_TRUE(Exists("out/wide/good/1/test.safetensors"));
  for (const char* seed : {"1", "2"}) {
    const std::string run = std::string("out/wide/still/") + seed;
    EXPECT_TRUE(Exists(run + "/checkpoint"));
    EXPECT_FALSE(Exists(run + "/test.safetensors"));
    EXPECT_THAT(ReadBytes(directory_ / (run + "/config.textproto")), Not(HasSubstr("test")));
    EXPECT_THAT(ReadBytes(directory_ / (run + "/checkpoint/metrics.json")), Not(HasSubstr("test.")));
  }
  EXPECT_FALSE(Exists("out/wide/still/3"));
}

TEST_F(CompareTest, AFailedArmIsReportedAndTheOthersGoOn) {
  // A column that the log lacks, which only the training can notice.
  const std::string broken = R"(arms { name: "broken" config: "base.textproto" control: true
    overrides { data { train: "none.csv" } } })";
  ASSERT_TRUE(Run(std::string(kComparison) + broken).ok());
  EXPECT_THAT(printed_, HasSubstr("| broken (control) | – "));
  EXPECT_THAT(printed_, HasSubstr("| 0 of 3, 3 failed |"));
  EXPECT_THAT(printed_, ContainsRegex("\\| broken/1/2 \\| hilomoe-train: .*none.csv: cannot open"));
  const Json result = Result();
  EXPECT_EQ(result.at("arms")[2].at("failed"), 3);
  EXPECT_EQ(result.at("differences").size(), 3u);  // from the other control alone
  // Not again, unless asked for; then with what has been put right.
  ASSERT_TRUE(Run(std::string(kComparison) + broken).ok());
  EXPECT_EQ(Attempts("broken/1/1"), 1);
  fs::copy(directory_ / "log/train.csv", directory_ / "log/none.csv");
  ASSERT_TRUE(Run(std::string(kComparison) + broken, true).ok());
  EXPECT_EQ(Attempts("broken/1/1"), 2);
  EXPECT_EQ(Result().at("differences").size(), 6u);
}

TEST_F(CompareTest, ATrialWithAFailedRunIsNotEligible) {
  const std::string comparison = Replaced(kComparison, "trials { name: \"good\" }",
                                          "trials { name: \"good\" overrides { data { train: \"none.csv\" } } }");
  ASSERT_TRUE(Run(comparison + "monitor: LOGLOSS").ok());  // of which nothing would be the best
  EXPECT_EQ(Result().at("arms")[0].at("chosen"), "still");
  EXPECT_THAT(printed_, HasSubstr("| wide | good | – | 0 of 2 | not eligible |"));
}

TEST_F(CompareTest, WhatWasFrozenStays) {
  ASSERT_TRUE(Run().ok());
  // Another config under the same name.
  absl::Status status = Run(Replaced(kComparison, "width: 16", "width: 17"));
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("another config than arm 'wide', trial 'still'"));
  // Another trial beside those that were chosen from.
  status =
      Run(Replaced(kComparison, "trials { name: \"good\" }", "trials { name: \"good\" } trials { name: \"more\" }"));
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("froze the choice for arm 'wide'"));
  status = Run(Replaced(kComparison, "selection_seeds: 2", "selection_seeds: 1"));
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  // Another arm may come later, and is told apart.
  ASSERT_TRUE(Run(std::string(kComparison) + R"(arms { name: "late" config: "base.textproto" control: true })").ok());
  EXPECT_THAT(printed_, HasSubstr("Arm 'late' was added when test rows had already been scored"));
  EXPECT_EQ(Result().at("arms")[0].at("chosen_after_test"), false);
  EXPECT_EQ(Attempts("wide/good/1"), 1);
  // And what is left out is not forgotten.
  ASSERT_TRUE(Run().ok());
  EXPECT_THAT(printed_, HasSubstr("no longer in the comparison's file: late"));
}

TEST_F(CompareTest, ScoresOfOtherTestLogsAreNotTakenForNewOnes) {
  ASSERT_TRUE(Run().ok());
  fs::copy(directory_ / "log/valid.csv", directory_ / "log/other.csv");
  WriteBytes(directory_ / "base.textproto", Replaced(kConfig, "test: \"test.csv\"", "test: \"other.csv\""));
  const absl::Status status = Run();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("remove every test.safetensors"));
  for (const auto& entry : fs::recursive_directory_iterator(directory_ / "out")) {
    if (entry.path().filename() == "test.safetensors") fs::remove(entry.path());
  }
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(Attempts("wide/good/1"), 1);
  const std::string log = ReadBytes(directory_ / "log/other.csv");
  EXPECT_EQ(Result().at("test_rows"), std::count(log.begin(), log.end(), '\n') - 1);
  EXPECT_THAT(printed_, HasSubstr("Test log: other.csv"));
}

TEST_F(CompareTest, OneAtATime) {
  fs::create_directory(directory_ / "out");
  const int holder = open((directory_ / "out/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  ASSERT_EQ(flock(holder, LOCK_EX), 0);
  const absl::Status status = Run();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("in use"));
  EXPECT_FALSE(Exists("out/wide"));
  close(holder);
}

}  // namespace
}  // namespace hilomoe
