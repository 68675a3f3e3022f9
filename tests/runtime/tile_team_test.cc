#include "runtime/tile_team.h"

#include <atomic>
#include <barrier>
#include <latch>
#include <memory>
#include <numeric>
#include <set>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace hilomoe {
namespace {

std::unique_ptr<TileTeam> MakeTeam(int threads) {
  auto team = TileTeam::Create(threads);
  EXPECT_TRUE(team.ok()) << team.status();
  return *std::move(team);
}

void WaitFor(const std::atomic<bool>& flag) {
  while (!flag) std::this_thread::yield();
}

TEST(TileTeamTest, EvaluatesEveryTileOnce) {
  for (int threads = 1; threads <= 4; ++threads) {
    const std::unique_ptr<TileTeam> team = MakeTeam(threads);
    EXPECT_EQ(team->helpers(), threads - 1);
    for (const size_t tiles : {0, 1, 2, 3, 17, 500}) {
      std::vector<int> evaluated(tiles), by_helper(tiles);  // plain: Run must hand over what helpers write
      const size_t helped = team->Run(tiles, true, [&](int worker, size_t tile, size_t next) {
        ASSERT_LT(tile, tiles);
        EXPECT_GT(next, tile);
        EXPECT_LE(worker, team->helpers());
        ++evaluated[tile];
        by_helper[tile] = worker > 0;
      });
      EXPECT_EQ(evaluated, std::vector<int>(tiles, 1));
      EXPECT_EQ(helped, std::accumulate(by_helper.begin(), by_helper.end(), size_t{0}));
    }
  }
}

TEST(TileTeamTest, AllIdleThreadsHelpAtOnce) {
  const std::unique_ptr<TileTeam> team = MakeTeam(4);
  std::barrier all_at_work(4);
  std::vector<int> workers(4);
  EXPECT_EQ(team->Run(4, true,
                      [&](int worker, size_t tile, size_t) {
                        workers[tile] = worker;
                        all_at_work.arrive_and_wait();
                      }),
            3);
  EXPECT_EQ(std::set<int>(workers.begin(), workers.end()), (std::set<int>{0, 1, 2, 3}));
}

TEST(TileTeamTest, WithoutASplitTheCallerWorksAlone) {
  const std::unique_ptr<TileTeam> team = MakeTeam(3);
  size_t expected = 0;
  EXPECT_EQ(team->Run(100, false,
                      [&](int worker, size_t tile, size_t next) {
                        EXPECT_EQ(worker, 0);
                        EXPECT_EQ(tile, expected++);
                        EXPECT_EQ(next, tile + 1);
                      }),
            0);
  EXPECT_EQ(expected, 100);
}

// Only one of two helpers may come while another caller is at work; and none while two are.
TEST(TileTeamTest, CallersCountAsThreads) {
  const std::unique_ptr<TileTeam> team = MakeTeam(3);
  std::latch first_at_work(1), release(1);
  std::jthread first([&] {
    team->Run(1, false, [&](int, size_t, size_t) {
      first_at_work.count_down();
      release.wait();
    });
  });
  first_at_work.wait();
  std::barrier two_at_work(2);
  std::atomic<int> at_once{0}, most{0};
  EXPECT_EQ(team->Run(2, true, [&](int, size_t, size_t) { two_at_work.arrive_and_wait(); }), 1);
  for (int i = 0; i < 100; ++i) {
    team->Run(20, true, [&](int, size_t, size_t) {
      const int now = ++at_once;
      for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {
      }
      two_at_work.arrive_and_wait();  // on a busy machine, too
      --at_once;
    });
  }
  EXPECT_EQ(most, 2);
  std::latch second_at_work(1);
  std::jthread second([&] {
    team->Run(1, false, [&](int, size_t, size_t) {
      second_at_work.count_down();
      release.wait();
    });
  });
  second_at_work.wait();
  EXPECT_EQ(team->Run(100, true, [&](int worker, size_t, size_t) { EXPECT_EQ(worker, 0); }), 0);
  release.count_down();
}

TEST(TileTeamTest, ABusyHelperIsNotWaitedFor) {
  const std::unique_ptr<TileTeam> team = MakeTeam(2);
  std::atomic<bool> helper_at_work{false}, release{false};
  std::jthread other([&] {
    team->Run(2, true, [&](int worker, size_t, size_t) {
      if (worker > 0) helper_at_work = true;
      WaitFor(worker > 0 ? release : helper_at_work);
    });
  });
  WaitFor(helper_at_work);
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(team->Run(10, true, [](int worker, size_t, size_t) { EXPECT_EQ(worker, 0); }), 0);
  }
  release = true;
}

TEST(TileTeamTest, AHelperMakesRoomForACallerAndComesBack) {
  const std::unique_ptr<TileTeam> team = MakeTeam(2);
  std::atomic<bool> helped{false}, caller_came{false}, caller_goes{false}, came_back{false};
  std::jthread other([&] {
    WaitFor(helped);
    team->Run(1, true, [&](int, size_t, size_t) {
      caller_came = true;
      WaitFor(caller_goes);
    });
  });
  int by_helper_meanwhile = 0, by_caller_meanwhile = 0;
  team->Run(10'000'000, true, [&](int worker, size_t, size_t) {
    if (worker > 0) {
      if (helped && !caller_came) WaitFor(caller_came);
      if (caller_came && !caller_goes) ++by_helper_meanwhile;
      if (caller_goes) came_back = true;
      helped = true;
    } else if (!helped) {
      WaitFor(helped);
    } else if (!caller_goes) {
      WaitFor(caller_came);
      if (++by_caller_meanwhile == 1000) caller_goes = true;
      std::this_thread::yield();
    } else if (!came_back) {
      std::this_thread::yield();
    }
  });
  EXPECT_TRUE(came_back);
  EXPECT_LE(by_helper_meanwhile, 1) << "it leaves after the tile that it is in the middle of";
}

// Many callers, short runs: helpers are called, work, leave and are called off in every order.
TEST(TileTeamTest, ManyCallersGetTheirOwnTiles) {
  const std::unique_ptr<TileTeam> team = MakeTeam(4);
  std::atomic<int> wrong{0};
  std::vector<std::jthread> callers;
  for (int caller = 0; caller < 3; ++caller) {
    callers.emplace_back([&, caller] {
      std::vector<size_t> results(64);
      for (size_t i = 0; i < 3000; ++i) {
        const size_t tiles = 1 + i % results.size(), stamp = i * 3 + static_cast<size_t>(caller);
        team->Run(tiles, true, [&](int, size_t tile, size_t) { results[tile] = stamp + tile; });
        for (size_t tile = 0; tile < tiles; ++tile) wrong += results[tile] != stamp + tile;
      }
    });
  }
  callers.clear();
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace hilomoe
