// The limit that binds, from limits that are given.
#include "tools/bench/roofline.h"

#include <deque>

#include "gtest/gtest.h"
#include "runtime/kernels/kernels.h"

namespace hilomoe::bench {
namespace {

class RooflineTest : public testing::Test {
 protected:
  RooflineTest() {
    machine_.l1_bytes = 1'000;
    machine_.l2_bytes = 10'000;
    machine_.l3_bytes = 100'000;
    // One second each, so that the amounts are the rates.
    Add(FmaLimit("float32"), "avx2", 1, &Work::flops, 1000);
    Add(FmaLimit("float32"), "avx512", 1, &Work::flops, 2000);
    Add(FmaLimit("float32"), "avx512", 2, &Work::flops, 4000);
    Add(FmaLimit("int8"), "avx2", 1, &Work::flops, 1500);
    Add(FmaLimit("int8"), "avx512_vnni", 1, &Work::flops, 8000);
    Add(FmaLimit("bfloat16"), "avx512_bf16", 1, &Work::flops, 3000);
    Add(ReadLimit("L1"), "avx512", 1, &Work::bytes, 8000);
    Add(ReadLimit("L2"), "avx512", 1, &Work::bytes, 4000);
    Add(ReadLimit("L3"), "avx512", 1, &Work::bytes, 2000);
    Add(ReadLimit("memory"), "avx512", 1, &Work::bytes, 1000);
    Add(kRandomReadLimit, "portable", 1, &Work::random_reads, 10);
  }
  void Add(const std::string& name, const std::string& set, int threads, double Work::*amount, double rate) {
    Case& c = cases_.emplace_back();
    c.group = kLimitsGroup;
    c.name = name;
    c.instruction_set = set;
    c.threads = threads;
    c.work.*amount = rate;
    measurements_.push_back({&c, {1, 0.5, 1}});
  }
  void ExpectBound(const Case& c, const std::string& limit, double seconds) {
    const std::optional<Bound> bound = Roofline(machine_, measurements_).Of(c);
    ASSERT_TRUE(bound.has_value());
    EXPECT_EQ(bound->limit, limit);
    EXPECT_DOUBLE_EQ(bound->seconds, seconds);
  }

  Machine machine_;
  std::deque<Case> cases_;
  std::vector<Measurement> measurements_;
};

TEST_F(RooflineTest, MultiplyAddsGoByTheBestThatTheInstructionSetIncludes) {
  int count = 0;
  kernels::AllKernels(&count);
  if (count == 1) GTEST_SKIP() << "a build for another architecture knows no order of these instruction sets";
  const struct {
    std::string set, precision, limit;
    double seconds;
  } expected[] = {
      {"avx2", "float32", "fma float32", 24.0 / 1},
      {"avx512", "float32", "fma float32", 24.0 / 2},
      {"avx512_vnni", "float32", "fma float32", 24.0 / 2},
      {"avx512_bf16", "float32", "fma float32", 24.0 / 2},
      {"avx2", "int8", "fma int8", 24.0 / 1.5},
      {"avx512", "int8", "fma int8", 24.0 / 1.5},
      {"avx512_vnni", "int8", "fma int8", 24.0 / 8},
      {"avx512_bf16", "int8", "fma int8", 24.0 / 8},
      {"avx512_bf16", "bfloat16", "fma bfloat16", 24.0 / 3},
      // Without instructions for them bfloat16 are multiplied as floats.
      {"avx512_vnni", "bfloat16", "fma float32", 24.0 / 2},
      {"avx2", "bfloat16", "fma float32", 24.0 / 1},
      {"something else", "int8", "fma int8", 24.0 / 8},
  };
  for (const auto& [set, precision, limit, seconds] : expected) {
    SCOPED_TRACE(set + " " + precision);
    Case c;
    c.work.flops = 24'000;
    c.work.precision = precision;
    c.instruction_set = set;
    ExpectBound(c, limit, seconds);
  }
}

TEST_F(RooflineTest, MultiplyAddsOfSeveralThreadsGoByAsMany) {
  Case c;
  c.work.flops = 4000;
  c.instruction_set = "avx512";
  c.threads = 2;
  ExpectBound(c, "fma float32", 1);
  c.instruction_set = "avx2";  // not measured with two threads
  EXPECT_FALSE(Roofline(machine_, measurements_).Of(c).has_value());
}

TEST_F(RooflineTest, BytesComeFromTheNearestLevelsThatHoldThem) {
  Case c;
  c.work.bytes = 800;
  ExpectBound(c, "read L1", 0.1);
  c.work.bytes = 5'000;
  ExpectBound(c, "read L2", 1'000.0 / 8000 + 4'000.0 / 4000);
  c.work.working_set = 500;
  ExpectBound(c, "read L1", 5'000.0 / 8000);
  c.work.bytes = c.work.working_set = 200'000;
  ExpectBound(c, "read memory", 1'000.0 / 8000 + 9'000.0 / 4000 + 90'000.0 / 2000 + 100'000.0 / 1000);
  // Runs in turn push one another out of the caches; of a flushed one memory gives what it reads itself.
  c.work = {.bytes = 500, .working_set = 500, .in_turn = 5'000};
  ExpectBound(c, "read L2", 100.0 / 8000 + 400.0 / 4000);
  c.work = {.bytes = 200'000, .working_set = 3'000, .in_turn = 50'000};
  c.cache = Cache::kFlushed;
  ExpectBound(c, "read memory", 3);
}

TEST_F(RooflineTest, TheSlowestBinds) {
  Case c;
  c.instruction_set = "avx512";
  c.work = {.flops = 4000, .bytes = 800, .random_reads = 5};
  ExpectBound(c, "fma float32", 2);
  c.work.random_reads = 50;
  ExpectBound(c, kRandomReadLimit, 5);
  c.group = kLimitsGroup;
  EXPECT_FALSE(Roofline(machine_, measurements_).Of(c).has_value());
}

}  // namespace
}  // namespace hilomoe::bench
