// A benchmark that gives a wrong result fails the run and is not timed.
#include "tools/bench/run_cases.h"

#include <map>
#include <string>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tools/bench/report.h"

namespace hilomoe::bench {
namespace {

using testing::HasSubstr;
using testing::Not;

class RunCasesTest : public testing::Test {
 protected:
  Case Make(const std::string& group, const std::string& name, bool right = true) {
    Case c;
    c.group = group;
    c.name = name;
    c.instruction_set = "portable";
    c.work.flops = 100;
    c.prepare = [this, name, right](int) -> absl::StatusOr<Operands> {
      Operands operands;
      operands.verify = [right]() -> absl::Status {
        return right ? absl::OkStatus() : absl::DataLossError("2 instead of 3");
      };
      operands.run = [this, name] { ++runs_[name]; };
      return operands;
    };
    return c;
  }
  absl::StatusOr<std::vector<Measurement>> Run(const std::vector<Case>& cases, const std::string& filter = "") {
    return RunCases(cases, machine_, {.filter = filter, .repetitions = 3, .min_time = 1e-5, .smoke = false});
  }

  const Machine machine_ = DescribeMachine();
  std::map<std::string, int> runs_;
};

TEST_F(RunCasesTest, MeasuresEveryRepetition) {
  Case flushed = Make("kernels", "b");
  flushed.cache = Cache::kFlushed;
  const std::vector<Case> cases = {Make("kernels", "a"), flushed};
  const auto measurements = Run(cases);
  ASSERT_TRUE(measurements.ok()) << measurements.status();
  ASSERT_EQ(measurements->size(), 2);
  for (const Measurement& measurement : *measurements) {
    EXPECT_EQ(measurement.seconds.size(), 3);
    for (const double seconds : measurement.seconds) EXPECT_GT(seconds, 0);
  }
  EXPECT_EQ((*measurements)[1].benchmark, &cases[1]);
}

TEST_F(RunCasesTest, AWrongResultFailsTheRunAndIsNotTimed) {
  const std::vector<Case> cases = {Make("kernels", "right"), Make("kernels", "wrong", false)};
  const auto measurements = Run(cases);
  EXPECT_EQ(measurements.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(measurements.status().message()), HasSubstr("kernels/wrong/portable: 2 instead of 3"));
  EXPECT_EQ(runs_["wrong"], 0);
  EXPECT_GT(runs_["right"], 0);
}

TEST_F(RunCasesTest, TheOperandsOfEveryThreadAreVerified) {
  Case c = Make("kernels", "a");
  c.threads = 2;
  const auto prepare = c.prepare;
  c.prepare = [prepare](int thread) -> absl::StatusOr<Operands> {
    absl::StatusOr<Operands> operands = prepare(thread);
    if (thread == 1) operands->verify = [] { return absl::DataLossError("the second"); };
    return operands;
  };
  const std::vector<Case> cases = {c};
  EXPECT_THAT(std::string(Run(cases).status().message()), HasSubstr("the second"));
}

TEST_F(RunCasesTest, ThreadsTogetherShareOneRun) {
  Case c = Make("kernels", "a");
  c.threads = 2;
  c.together = true;
  EXPECT_EQ(FullName(c), "kernels/a/portable/2 threads together");
  const std::thread::id caller = std::this_thread::get_id();
  int prepared = 0;
  const auto prepare = c.prepare;
  c.prepare = [&](int thread) -> absl::StatusOr<Operands> {
    EXPECT_EQ(thread, 0);
    ++prepared;
    absl::StatusOr<Operands> operands = prepare(thread);
    operands->run = [caller] { EXPECT_EQ(std::this_thread::get_id(), caller); };
    return operands;
  };
  const std::vector<Case> cases = {c};
  EXPECT_TRUE(Run(cases).ok());
  EXPECT_EQ(prepared, 1);
}

TEST_F(RunCasesTest, AFilterKeepsTheLimits) {
  const std::vector<Case> cases = {Make("limits", "fma float32"), Make("kernels", "a"), Make("kernels", "b")};
  const auto measurements = Run(cases, "kernels/b");
  ASSERT_TRUE(measurements.ok()) << measurements.status();
  ASSERT_EQ(measurements->size(), 2);
  EXPECT_EQ((*measurements)[1].benchmark, &cases[2]);
  EXPECT_EQ(runs_["a"], 0);
  EXPECT_EQ(Run(cases, "nothing").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Run(cases, "(").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(RunCasesTest, ReportsComparisonsOfWhatWasRun) {
  std::vector<Case> cases = {Make("limits", "fma float32"), Make("kernels", "a"), Make("kernels", "b")};
  cases[2].compared_with = {FullName(cases[1]), "kernels/gone/portable"};
  cases[2].work.flops = 50;
  Measurement fma{&cases[0], {1e-8, 1e-8, 1e-8}}, a{&cases[1], {4e-6, 2e-6, 2e-6}}, b{&cases[2], {1e-6, 1e-6, 2e-6}};
  const Report report = MakeReport(machine_, 3, {}, {fma, a, b});
  ASSERT_EQ(report.comparisons.size(), 1);
  EXPECT_DOUBLE_EQ(report.comparisons[0].times_as_fast, 2);
  EXPECT_DOUBLE_EQ(*report.comparisons[0].by_flops, 2);
  const std::string text = ReportText(report), json = ReportJson(report);
  // 100 FLOPs at the limit's 10 GFLOP/s take 10 ns of 2 us.
  EXPECT_THAT(text, HasSubstr("2.00 us"));
  EXPECT_THAT(json, HasSubstr("\"fraction_of_limit\": 0.005"));
  EXPECT_THAT(text, Not(HasSubstr("gone")));
}

}  // namespace
}  // namespace hilomoe::bench
