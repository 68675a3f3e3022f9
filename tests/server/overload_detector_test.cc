#include "server/overload_detector.h"

#include <gtest/gtest.h>

namespace hilomoe {
namespace {

using std::chrono::milliseconds;

constexpr double kLimit = 15e6;

class OverloadDetectorTest : public ::testing::Test {
 protected:
  bool Refuses(int at_ms, double wait_ms) {
    return detector_.Refuses(wait_ms * 1e6, kLimit,
                             OverloadDetector::Clock::time_point(milliseconds(1'000'000 + at_ms)));
  }
  OverloadDetector detector_;
};

TEST_F(OverloadDetectorTest, ABurstWaits) {
  EXPECT_FALSE(Refuses(0, 0));
  for (int at = 1; at < 245; ++at) EXPECT_FALSE(Refuses(at, 114)) << at;
  // It is worked off, and another one comes.
  EXPECT_FALSE(Refuses(246, 14));
  for (int at = 247; at < 490; ++at) EXPECT_FALSE(Refuses(at, 114)) << at;
}

TEST_F(OverloadDetectorTest, ABurstThatIsTooLargeWaitsInPart) {
  EXPECT_FALSE(Refuses(0, 0));
  EXPECT_FALSE(Refuses(1, 114));
  EXPECT_TRUE(Refuses(1, 116));
  EXPECT_FALSE(Refuses(2, 114));
}

TEST_F(OverloadDetectorTest, AQueueThatStaysLongIsRefusedToGrow) {
  EXPECT_FALSE(Refuses(0, 15));
  EXPECT_TRUE(Refuses(251, 16));
  // Short for a moment, which is no end of the overload.
  EXPECT_FALSE(Refuses(260, 14));
  EXPECT_TRUE(Refuses(261, 16));
  // Nobody had to be refused for a second.
  for (int at = 270; at < 1300; at += 10) EXPECT_FALSE(Refuses(at, 10)) << at;
  EXPECT_FALSE(Refuses(1301, 100));
}

TEST_F(OverloadDetectorTest, RefusalsKeepItStrict) {
  EXPECT_FALSE(Refuses(0, 0));
  for (int at = 300; at < 5000; at += 50) {
    EXPECT_TRUE(Refuses(at, 16)) << at;
    EXPECT_FALSE(Refuses(at + 1, 15)) << at;
  }
}

TEST_F(OverloadDetectorTest, AfterALongSilenceABurstWaitsAll) {
  EXPECT_FALSE(Refuses(0, 0));
  EXPECT_FALSE(Refuses(100'000, 0));
  EXPECT_FALSE(Refuses(100'001, 100));
}

}  // namespace
}  // namespace hilomoe
