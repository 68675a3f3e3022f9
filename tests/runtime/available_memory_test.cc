// The memory that is left follows the machine and the limits of cgroups.
#include "runtime/available_memory.h"

#include <cmath>
#include <string>

#include "gtest/gtest.h"
#include "tests/model/test_files.h"

namespace hilomoe {
namespace {

TEST(CgroupMemoryTest, CountsWhatTheKernelCanDropAsFree) {
  const TestDirectory v2;
  EXPECT_TRUE(std::isinf(CgroupMemoryLeft(v2.path())));
  EXPECT_TRUE(std::isinf(CgroupMemoryLeft(v2 / "missing")));
  WriteBytes(v2 / "memory.current", "700\n");
  WriteBytes(v2 / "memory.stat", "anon 400\nfile 300\ninactive_anon 5\ninactive_file 250\nactive_file 50\n");
  WriteBytes(v2 / "memory.max", "max\n");
  EXPECT_TRUE(std::isinf(CgroupMemoryLeft(v2.path())));
  WriteBytes(v2 / "memory.max", "1000\n");
  EXPECT_EQ(CgroupMemoryLeft(v2.path()), 550);
  WriteBytes(v2 / "memory.max", "100\n");  // lowered below what is used
  EXPECT_EQ(CgroupMemoryLeft(v2.path()), 0);

  const TestDirectory v1;
  WriteBytes(v1 / "memory.limit_in_bytes", "1000\n");
  WriteBytes(v1 / "memory.usage_in_bytes", "700\n");
  WriteBytes(v1 / "memory.stat", "inactive_file 1\ntotal_inactive_file 250\n");
  EXPECT_EQ(CgroupMemoryLeft(v1.path()), 550);
}

TEST(AvailableMemoryTest, IsLessThanAMachineHas) {
  EXPECT_GT(AvailableMemoryBytes(), 1e6);
  EXPECT_LT(AvailableMemoryBytes(), 1e14);
}

}  // namespace
}  // namespace hilomoe
