#include "tools/common/progress_bar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace hilomoe {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

// What is written, and a clock that stands still until it is moved.
class ProgressBarTest : public ::testing::Test {
 protected:
  ProgressBarTest() : out_(::open_memstream(&bytes_, &size_)) {}
  ~ProgressBarTest() override {
    std::fclose(out_);
    std::free(bytes_);
  }

  ProgressBar::Options Options(ProgressBar::Options::Mode mode) {
    ProgressBar::Options options;
    options.label = "epoch 1";
    options.total = 2000;
    options.mode = mode;
    options.out = out_;
    options.columns = 120;
    options.now_seconds = [this] { return now_; };
    return options;
  }
  // Since the last call.
  std::string Written() {
    std::fflush(out_);
    std::string text(bytes_ + seen_, size_ - seen_);
    seen_ = size_;
    return text;
  }

  char* bytes_ = nullptr;
  size_t size_ = 0;
  size_t seen_ = 0;
  std::FILE* out_;
  double now_ = 100;
};

TEST_F(ProgressBarTest, RedrawsOneLineOnATerminal) {
  ProgressBar bar(Options(ProgressBar::Options::Mode::kTerminal));
  bar.Update(0);
  EXPECT_EQ(Written(), "\repoch 1   0% [>                   ]  0/2,000 rows  0.0 rows/s\x1b[K");
  now_ += 2;
  bar.Update(500, "loss 0.43");
  EXPECT_EQ(Written(),
            "\repoch 1  25% [=====>              ]  500/2,000 rows  250.0 rows/s  0:06 left  loss 0.43\x1b[K");
  now_ += 6;
  bar.Update(2000);
  EXPECT_EQ(Written(), "\repoch 1 100% [====================]  2,000/2,000 rows  250.0 rows/s  0:00 left\x1b[K");
  bar.Finish("loss 0.41");
  EXPECT_EQ(Written(), "\repoch 1  2,000 rows  250.0 rows/s  in 0:08  loss 0.41\x1b[K\n");
  bar.Finish();
  bar.Update(2000);
  EXPECT_EQ(Written(), "");
}

TEST_F(ProgressBarTest, RedrawsTenTimesASecondAtMost) {
  ProgressBar bar(Options(ProgressBar::Options::Mode::kTerminal));
  int draws = 0;
  // 1,000 updates within a second.
  for (int i = 0; i < 1000; ++i) {
    bar.Update(i);
    draws += Written().empty() ? 0 : 1;
    now_ += 0.001;
  }
  EXPECT_GE(draws, 9);
  EXPECT_LE(draws, 10);
}

TEST_F(ProgressBarTest, KeepsToTheTerminalsWidth) {
  ProgressBar::Options options = Options(ProgressBar::Options::Mode::kTerminal);
  options.columns = 20;
  options.label = "\xc3\xa9poque";  // 6 characters, 7 bytes
  ProgressBar bar(options);
  bar.Update(1000);
  EXPECT_EQ(Written(), "\r\xc3\xa9poque  50% [======\x1b[K");  // 19 characters
}

TEST_F(ProgressBarTest, WritesALinePerIntervalElsewhere) {
  ProgressBar bar(Options(ProgressBar::Options::Mode::kDetect));  // a memory stream is no terminal
  std::string text;
  for (int second = 0; second < 25; ++second) {
    bar.Update(second * 50, "loss 0.5");
    now_ += 1;
  }
  EXPECT_EQ(Written(),
            "epoch 1  25%  500/2,000 rows  50.0 rows/s  0:30 left  loss 0.5\n"
            "epoch 1  50%  1,000/2,000 rows  50.0 rows/s  0:20 left  loss 0.5\n");
  bar.Finish();
  EXPECT_EQ(Written(), "epoch 1  1,200 rows  48.0 rows/s  in 0:25\n");
}

TEST_F(ProgressBarTest, DoesWithoutATotal) {
  ProgressBar::Options options = Options(ProgressBar::Options::Mode::kLines);
  options.total = 0;
  options.interval_s = 1;
  ProgressBar bar(options);
  now_ += 4000;
  bar.Update(8'000'000);
  EXPECT_EQ(Written(), "epoch 1  8,000,000 rows  2.0k rows/s\n");
  now_ += 4000;
  bar.UpdateFraction(0.5, 16'000'000);
  EXPECT_EQ(Written(), "epoch 1  50%  16,000,000 rows  2.0k rows/s  2:13:20 left\n");
  // A file that grew while it was read.
  now_ += 4000;
  bar.UpdateFraction(1.5, 16'000'000);
  EXPECT_THAT(Written(), HasSubstr("epoch 1 100% "));
}

TEST_F(ProgressBarTest, LeavesAnUnfinishedTerminalLineBehind) {
  {
    ProgressBar bar(Options(ProgressBar::Options::Mode::kTerminal));
    bar.Update(1);
    EXPECT_THAT(Written(), Not(EndsWith("\n")));
  }
  EXPECT_EQ(Written(), "\n");
  { ProgressBar unused(Options(ProgressBar::Options::Mode::kTerminal)); }
  EXPECT_EQ(Written(), "");
}

}  // namespace
}  // namespace hilomoe
