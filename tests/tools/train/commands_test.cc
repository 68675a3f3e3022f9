// Which flags the sub-commands take.
#include "tools/train/commands.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace hilomoe {
namespace {

using testing::HasSubstr;

std::string Refusal(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "hilomoe-train");
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  const Command commands[] = {TrainCommand(), EvaluateCommand(), GenerateCommand()};
  return std::string(ParseCommandLine(static_cast<int>(pointers.size()), pointers.data(), commands).status().message());
}

TEST(CommandsTest, AFlagThatWouldDoNothingIsRefused) {
  EXPECT_THAT(Refusal({"evaluate", "--checkpoint=c", "--seed=2", "log.csv"}), HasSubstr("unknown flag '--seed'"));
  EXPECT_THAT(Refusal({"generate", "--directory=d", "--threads=2"}), HasSubstr("unknown flag '--threads'"));
  EXPECT_EQ(Refusal({"evaluate", "--checkpoint=c", "--threads=2", "log.csv"}), "");
  EXPECT_EQ(Refusal({"generate", "--directory=d", "--seed=2"}), "");
  EXPECT_EQ(Refusal({"train", "--config=c", "--output=o", "--seed=2", "--threads=2"}), "");
}

TEST(CommandsTest, SoManyThreadsAreRefused) {
  for (const char* threads : {"--threads=-1", "--threads=1025"}) {
    EXPECT_THAT(Refusal({"train", "--config=c", "--output=o", threads}), HasSubstr("--threads: "));
    EXPECT_THAT(Refusal({"evaluate", "--checkpoint=c", threads, "log.csv"}), HasSubstr("--threads: "));
  }
}

}  // namespace
}  // namespace hilomoe
