#include "server/thread_priority.h"

#include <gtest/gtest.h>

#include <chrono>
#include <ctime>

namespace hilomoe {
namespace {

using std::chrono::duration;

double CpuSeconds() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Whatever else the machine does, of four parts of the time at least three are pauses.
TEST(WorkPacerTest, RestsThreeTimesAsLongAsItWorks) {
  WorkPacer pacer;
  pacer.Pause();
  const auto begin = std::chrono::steady_clock::now();
  const double cpu_begin = CpuSeconds();
  double paused_for = 0;  // CPU seconds before the last pause
  for (int piece = 1; piece <= 20; ++piece) {
    while (CpuSeconds() < cpu_begin + 1e-3 * piece) {
    }
    paused_for = CpuSeconds() - cpu_begin;
    pacer.Pause();
  }
  const double wall = duration<double>(std::chrono::steady_clock::now() - begin).count();
  EXPECT_GE(wall, 3.9 * paused_for);
}

// Pieces too short to wait for are not forgotten: they add up.
TEST(WorkPacerTest, AddsUpShortPieces) {
  WorkPacer pacer;
  const auto begin = std::chrono::steady_clock::now();
  const double cpu_begin = CpuSeconds();
  while (CpuSeconds() < cpu_begin + 5e-3) pacer.Pause();
  EXPECT_GE(duration<double>(std::chrono::steady_clock::now() - begin).count(), 15e-3);
}

}  // namespace
}  // namespace hilomoe
