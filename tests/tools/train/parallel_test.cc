#include "tools/train/parallel.h"

#include <chrono>
#include <cstdint>
#include <numeric>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace hilomoe {
namespace {

// Rounds of every length of wait: at once, while a thread still watches, and after it fell asleep.
TEST(ParallelTest, EveryThreadRunsOnceARoundAndSeesTheRoundBefore) {
  for (const int threads : {1, 2, 5}) {
    Parallel parallel(threads);
    ASSERT_EQ(parallel.threads(), threads);
    std::vector<uint64_t> sums(static_cast<size_t>(threads), 1);
    uint64_t expected = 1;
    for (int round = 0; round < 3000; ++round) {
      if (round % 500 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
      const std::vector<uint64_t> before = sums;
      parallel.Run([&](int t) {
        if (round % 500 == 1 && t == threads - 1) std::this_thread::sleep_for(std::chrono::milliseconds(2));
        const size_t next = static_cast<size_t>((t + 1) % threads);
        sums[static_cast<size_t>(t)] = before[next] + static_cast<uint64_t>(t);
      });
      expected = std::accumulate(before.begin(), before.end(), uint64_t{0}) +
                 static_cast<uint64_t>(threads * (threads - 1) / 2);
      ASSERT_EQ(std::accumulate(sums.begin(), sums.end(), uint64_t{0}), expected) << threads << " threads, " << round;
    }
  }
}

TEST(ParallelTest, SlicesCoverEverythingOnceInGrains) {
  Parallel parallel(3);
  for (const size_t n : {0, 1, 15, 16, 17, 100, 1000}) {
    size_t end = 0;
    for (int t = 0; t < 3; ++t) {
      const auto [first, last] = parallel.Slice(n, t, 16);
      EXPECT_EQ(first, end);
      EXPECT_TRUE(last == n || last % 16 == 0) << last;
      end = last;
    }
    EXPECT_EQ(end, n);
  }
}

}  // namespace
}  // namespace hilomoe
