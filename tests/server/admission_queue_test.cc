#include "server/admission_queue.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>
#include <vector>

namespace hilomoe {
namespace {

using Decision = AdmissionQueue::Decision;
using Item = AdmissionQueue::Item;

TEST(AdmissionQueueTest, RunsUpToTheLimitThenQueuesThenRefuses) {
  AdmissionQueue queue(2, 100);
  Item items[6] = {{10}, {10}, {60}, {40}, {1}, {1}};
  EXPECT_EQ(queue.Admit(&items[0]), Decision::kRun);
  EXPECT_EQ(queue.Admit(&items[1]), Decision::kRun);
  EXPECT_EQ(queue.running(), 2);
  EXPECT_EQ(queue.Admit(&items[2]), Decision::kQueued);
  EXPECT_EQ(queue.Admit(&items[3]), Decision::kQueued);
  EXPECT_EQ(queue.queued_candidates(), 100);
  EXPECT_EQ(queue.Admit(&items[4]), Decision::kRefused);
  EXPECT_EQ(queue.queued_candidates(), 100);
  EXPECT_EQ(queue.Finish(), &items[2]);
  EXPECT_EQ(queue.running(), 2);
  EXPECT_EQ(queue.queued_candidates(), 40);
  EXPECT_EQ(queue.Admit(&items[4]), Decision::kQueued);
  EXPECT_EQ(queue.Finish(), &items[3]);
  EXPECT_EQ(queue.Finish(), &items[4]);
  EXPECT_EQ(queue.Finish(), nullptr);
  EXPECT_EQ(queue.running(), 1);
  EXPECT_EQ(queue.Admit(&items[5]), Decision::kRun);
  EXPECT_EQ(queue.Finish(), nullptr);
  EXPECT_EQ(queue.Finish(), nullptr);
  EXPECT_EQ(queue.running(), 0);
  EXPECT_EQ(queue.queued_candidates(), 0);
}

TEST(AdmissionQueueTest, WithoutRoomToWaitRefusesAtOnce) {
  AdmissionQueue queue(1, 0);
  Item items[2] = {{5}, {1}};
  EXPECT_EQ(queue.Admit(&items[0]), Decision::kRun);
  EXPECT_EQ(queue.Admit(&items[1]), Decision::kRefused);
  EXPECT_EQ(queue.Finish(), nullptr);
  EXPECT_EQ(queue.Admit(&items[1]), Decision::kRun);
}

TEST(AdmissionQueueTest, PatientItemsWaitBehindAllOthersAndAreNotRefused) {
  AdmissionQueue queue(1, 10);
  Item items[] = {{1}, {50, true}, {50, true}, {4}, {6}, {1}};
  EXPECT_EQ(queue.Admit(&items[0]), Decision::kRun);
  EXPECT_EQ(queue.Admit(&items[1]), Decision::kQueued);
  EXPECT_EQ(queue.Admit(&items[2]), Decision::kQueued);
  EXPECT_EQ(queue.queued_candidates(), 0);  // they take nobody's room
  EXPECT_EQ(queue.Admit(&items[3]), Decision::kQueued);
  EXPECT_EQ(queue.Admit(&items[4]), Decision::kQueued);
  EXPECT_EQ(queue.Admit(&items[5]), Decision::kRefused);
  EXPECT_EQ(queue.Finish(), &items[3]);
  EXPECT_EQ(queue.Finish(), &items[4]);
  EXPECT_EQ(queue.Finish(), &items[1]);
  EXPECT_EQ(queue.Admit(&items[5]), Decision::kQueued);
  EXPECT_EQ(queue.Finish(), &items[5]);
  EXPECT_EQ(queue.Finish(), &items[2]);
  EXPECT_EQ(queue.Finish(), nullptr);
  EXPECT_EQ(queue.queued_candidates(), 0);
  EXPECT_EQ(queue.running(), 0);
}

TEST(AdmissionQueueTest, LargeWeightsDoNotOverflow) {
  AdmissionQueue queue(1, UINT64_C(5'000'000'000));
  Item items[3] = {{1}, {UINT32_MAX}, {UINT32_MAX}};
  EXPECT_EQ(queue.Admit(&items[0]), Decision::kRun);
  EXPECT_EQ(queue.Admit(&items[1]), Decision::kQueued);
  EXPECT_EQ(queue.Admit(&items[2]), Decision::kRefused);
}

// Threads admit more than can run; whatever is admitted is run once, never more than the limit at a time, and nothing
// is left behind: the lost wake-up would leave an item in the queue with nobody running.
TEST(AdmissionQueueTest, ThreadsLoseAndDoubleNothing) {
  constexpr int kThreads = 4, kRounds = 20000;
  constexpr uint32_t kLimit = 2;
  struct CountedItem : Item {
    std::atomic<int> runs{0};
  };
  AdmissionQueue queue(kLimit, 50);
  std::atomic<uint32_t> now{0}, most{0};
  std::atomic<int> refused{0}, ran{0};
  std::vector<std::unique_ptr<CountedItem>> items;
  for (int i = 0; i < kThreads * kRounds; ++i) {
    items.push_back(std::make_unique<CountedItem>());
    items.back()->candidates = static_cast<uint32_t>(1 + i % 20);
    items.back()->patient = i % 50 == 0;
  }
  const auto work = [&](int thread) {
    for (int i = 0; i < kRounds; ++i) {
      CountedItem* mine = items[static_cast<size_t>(thread * kRounds + i)].get();
      const Decision decision = queue.Admit(mine);
      if (decision == Decision::kRefused) ++refused;
      if (decision != Decision::kRun) continue;
      for (Item* item = mine; item != nullptr; item = queue.Finish()) {
        const uint32_t running = ++now;
        for (uint32_t seen = most; running > seen && !most.compare_exchange_weak(seen, running);) {
        }
        ++static_cast<CountedItem*>(item)->runs;
        ++ran;
        if (i % 16 == 0) std::this_thread::yield();
        --now;
      }
    }
  };
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) threads.emplace_back(work, t);
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(most, kLimit);
  EXPECT_EQ(queue.running(), 0);
  EXPECT_EQ(queue.queued_candidates(), 0);
  EXPECT_EQ(ran + refused, kThreads * kRounds);
  EXPECT_TRUE(std::all_of(items.begin(), items.end(), [](const auto& item) { return item->runs <= 1; }));
}

}  // namespace
}  // namespace hilomoe
