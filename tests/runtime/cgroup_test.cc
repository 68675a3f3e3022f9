#include "runtime/cgroup.h"

#include <filesystem>
#include <string>

#include "gtest/gtest.h"
#include "tests/model/test_files.h"

namespace hilomoe {
namespace {

class CpuThrottlingTest : public ::testing::Test {
 protected:
  std::string Group(const std::string& name, const std::string& stat) {
    const std::string path = directory_ / name;
    std::filesystem::create_directories(path);
    WriteBytes(path + "/cpu.stat", stat);
    return path;
  }
  const TestDirectory directory_;
};

TEST_F(CpuThrottlingTest, BothHierarchiesAreRead) {
  const auto v2 = ReadCpuThrottling({Group("v2",
                                           "usage_usec 900\nuser_usec 500\nsystem_usec 400\nnr_periods 100\n"
                                           "nr_throttled 7\nthrottled_usec 2500000\nnr_bursts 0\nburst_usec 0\n")});
  ASSERT_TRUE(v2.has_value());
  EXPECT_EQ(v2->periods, 100);
  EXPECT_EQ(v2->throttled_periods, 7);
  EXPECT_DOUBLE_EQ(v2->throttled_seconds, 2.5);
  const auto v1 = ReadCpuThrottling({Group("v1", "nr_periods 100\nnr_throttled 7\nthrottled_time 2500000000\n")});
  ASSERT_TRUE(v1.has_value());
  EXPECT_DOUBLE_EQ(v1->throttled_seconds, 2.5);
}

// The quota of a group above slows us down as well.
TEST_F(CpuThrottlingTest, GroupsAreAddedUp) {
  const auto sum = ReadCpuThrottling(
      {Group("pod", "nr_periods 10\nnr_throttled 1\nthrottled_usec 1000000\n"), directory_ / "no such group",
       Group("pod/container", "nr_periods 20\nnr_throttled 4\nthrottled_usec 500000\n")});
  ASSERT_TRUE(sum.has_value());
  EXPECT_EQ(sum->periods, 30);
  EXPECT_EQ(sum->throttled_periods, 5);
  EXPECT_DOUBLE_EQ(sum->throttled_seconds, 1.5);
}

TEST_F(CpuThrottlingTest, NothingIsKnownWithoutAQuotasCounters) {
  EXPECT_FALSE(ReadCpuThrottling({}).has_value());
  EXPECT_FALSE(ReadCpuThrottling({directory_ / "none"}).has_value());
  // The root of v2, or a group that the controller is not enabled for.
  EXPECT_FALSE(ReadCpuThrottling({Group("root", "usage_usec 900\nuser_usec 500\n")}).has_value());
  EXPECT_FALSE(ReadCpuThrottling({Group("odd", "nr_periods many\n")}).has_value());
}

}  // namespace
}  // namespace hilomoe
