#include "server/free_memory.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <memory>
#include <vector>

namespace hilomoe {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

double ResidentMiB() {
  std::ifstream file("/proc/self/statm");
  double all = 0, resident = 0;
  file >> all >> resident;
  return resident * 4096 / kMiB;
}

// As a burst leaves them: free, but with something behind that is in use.
void AllocateAndFree(size_t bytes, std::vector<std::unique_ptr<char[]>>* kept) {
  constexpr size_t kChunk = 5000;
  std::vector<std::unique_ptr<char[]>> chunks;
  for (size_t i = 0; i * kChunk < bytes; ++i) {
    chunks.push_back(std::make_unique<char[]>(kChunk));
    std::memset(chunks.back().get(), 1, kChunk);
  }
  kept->push_back(std::make_unique<char[]>(kChunk));
}

TEST(FreeMemoryTest, GivesBackWhatABurstLeaves) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers have an allocator of their own";
#endif
  FreeMemory memory(32 * kMiB);
  EXPECT_FALSE(memory.GiveBack()) << "nothing is free yet";
  std::vector<std::unique_ptr<char[]>> kept;
  const double before = ResidentMiB();
  for (int burst = 0; burst < 2; ++burst) {
    AllocateAndFree(100 * kMiB, &kept);
    EXPECT_GT(ResidentMiB(), before + 90) << "else the next line shows nothing";
    EXPECT_TRUE(memory.GiveBack());
    EXPECT_LT(ResidentMiB(), before + 10);
    EXPECT_FALSE(memory.GiveBack()) << "it has been given back";
  }
}

TEST(FreeMemoryTest, GivesBackWhatIsFreedAfterTheLastTime) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers have an allocator of their own";
#endif
  FreeMemory memory(32 * kMiB);
  std::vector<std::unique_ptr<char[]>> kept, in_use;
  const double before = ResidentMiB();
  for (int i = 0; i < 20'000; ++i) in_use.push_back(std::make_unique<char[]>(5000));
  kept.push_back(std::make_unique<char[]>(5000));
  AllocateAndFree(100 * kMiB, &kept);
  EXPECT_TRUE(memory.GiveBack());
  in_use.clear();
  EXPECT_TRUE(memory.GiveBack());
  EXPECT_LT(ResidentMiB(), before + 10);
}

TEST(FreeMemoryTest, LeavesWhatASteadyLoadUsesAgain) {
  FreeMemory memory(256 * kMiB);
  std::vector<std::unique_ptr<char[]>> kept;
  AllocateAndFree(100 * kMiB, &kept);
  EXPECT_FALSE(memory.GiveBack());
}

}  // namespace
}  // namespace hilomoe
