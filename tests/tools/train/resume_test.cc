// Interrupted runs end where undisturbed ones do.
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/safetensors.h"
#include "nlohmann/json.hpp"
#include "tests/tools/train/trainer_fixture.h"

namespace hilomoe {
namespace {

using testing::HasSubstr;

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

TEST_F(TrainerTest, WhatAKilledRunLeftHalfWrittenGoesAtTheNextStart) {
  TrainOptions options = Options("killed");
  const pid_t dead = fork();
  if (dead == 0) _exit(0);
  ASSERT_EQ(waitpid(dead, nullptr, 0), dead);
  for (const char* name : {"/checkpoint.tmp.", "/resume.tmp."}) {
    const std::string half = options.output_dir + name + std::to_string(dead);
    std::filesystem::create_directories(half);
    std::ofstream(half + "/weights.safetensors") << "half of them";
  }
  const std::string other = options.output_dir + "/checkpoint.tmp.backup";
  std::filesystem::create_directories(other);
  ASSERT_TRUE(absl::IsCancelled(Train(StoppedAfterOneStep(options))));
  EXPECT_FALSE(std::filesystem::exists(options.output_dir + "/checkpoint.tmp." + std::to_string(dead)));
  EXPECT_FALSE(std::filesystem::exists(options.output_dir + "/resume.tmp." + std::to_string(dead)));
  EXPECT_TRUE(std::filesystem::exists(other));
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

TEST_F(TrainerTest, ResumeRefusesAStateOfAnotherSize) {
  for (const std::string name : {"weights", "best_weights", "m", "v"}) {
    TrainOptions options = Options("cut_" + name);
    ASSERT_TRUE(absl::IsCancelled(Train(StoppedAfterOneStep(options))));
    const std::vector<float> few = {1, 2, 3};
    ASSERT_TRUE(WriteSafetensors(options.output_dir + "/resume/" + name + ".safetensors",
                                 {MakeEntry(name, "F32", {few.size()}, absl::MakeConstSpan(few))})
                    .ok());
    options.resume = true;
    const absl::Status status = Train(options);
    EXPECT_FALSE(status.ok()) << name;
    EXPECT_THAT(std::string(status.message()), HasSubstr("/resume'")) << name;
  }
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

}  // namespace
}  // namespace hilomoe
