#include "tools/common/command_line.h"

#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>

#include "absl/flags/flag.h"
#include "absl/flags/reflection.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/file_io.h"
#include "tests/tools/client/fake_server.h"
#include "tools/client/score_command.h"

ABSL_FLAG(int, test_count, 1, "a number");
ABSL_FLAG(bool, test_switch, true, "a switch");

namespace hilomoe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class CommandLineTest : public ::testing::Test {
 protected:
  absl::StatusOr<ParsedCommandLine> Parse(std::vector<std::string> arguments) {
    Command command;
    command.name = "count";
    command.usage = "[flags] THING";
    command.summary = "Counts.";
    command.flag_files = {__FILE__};
    command.prepare = [this](const std::vector<std::string>& positional) -> absl::StatusOr<Job> {
      positional_ = positional;
      return Job([](std::FILE*) { return absl::OkStatus(); });
    };
    arguments.insert(arguments.begin(), "/bin/program");
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    return ParseCommandLine(static_cast<int>(argv.size()), argv.data(), {command, ScoreCommand()});
  }

  void ExpectError(const std::vector<std::string>& arguments, const std::string& message) {
    const absl::FlagSaver saver;
    const auto parsed = Parse(arguments);
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr(message));
  }

  absl::FlagSaver saver_;
  std::vector<std::string> positional_;
};

TEST_F(CommandLineTest, SetsFlagsAndHandsOnTheRest) {
  ASSERT_TRUE(Parse({"count", "a", "--test_count=5", "--notest_switch", "-", "--", "--b"}).ok());
  EXPECT_EQ(absl::GetFlag(FLAGS_test_count), 5);
  EXPECT_FALSE(absl::GetFlag(FLAGS_test_switch));
  EXPECT_THAT(positional_, ElementsAre("a", "-", "--b"));
  ASSERT_TRUE(Parse({"count", "-test_count", "-6", "--test_switch"}).ok());
  EXPECT_EQ(absl::GetFlag(FLAGS_test_count), -6);
  EXPECT_TRUE(absl::GetFlag(FLAGS_test_switch));
}

TEST_F(CommandLineTest, NamesWhatIsWrong) {
  ExpectError({}, "usage: program count [flags] THING");
  ExpectError({"cuont"}, "unknown command 'cuont'");
  ExpectError({"--test_count=5", "count"}, "unknown command '--test_count=5'");
  ExpectError({"count", "--cuont=5"}, "unknown flag '--cuont'");
  ExpectError({"count", "--nocuont"}, "unknown flag '--nocuont'");
  ExpectError({"count", "--notest_count"}, "unknown flag '--notest_count'");
  ExpectError({"count", "--test_count=many"}, "--test_count: 'many'");
  ExpectError({"count", "--test_count", "many"}, "--test_count: 'many'");
  ExpectError({"count", "--test_count"}, "--test_count needs a value");
  ExpectError({"count", "--test_switch=perhaps"}, "--test_switch: 'perhaps'");
  ExpectError({"count", "--notest_switch=true"}, "'--notest_switch' takes no value");
  // Flags of other commands, and abseil's own.
  ExpectError({"count", "--output=x"}, "unknown flag '--output'");
  ExpectError({"score", "--test_count=5"}, "unknown flag '--test_count'");
  ExpectError({"count", "--helpfull"}, "unknown flag '--helpfull'");
}

TEST_F(CommandLineTest, Helps) {
  for (const std::string help : {"--help", "-h", "help"}) {
    const auto parsed = Parse({help});
    ASSERT_TRUE(parsed.ok());
    EXPECT_THAT(parsed->help, HasSubstr("Usage: program COMMAND"));
    EXPECT_THAT(parsed->help, HasSubstr("Counts."));
  }
  const auto parsed = Parse({"count", "--help"});
  ASSERT_TRUE(parsed.ok());
  EXPECT_THAT(parsed->help, HasSubstr("Usage: program count [flags] THING"));
  EXPECT_THAT(parsed->help, HasSubstr("a number (default: 1)"));
  EXPECT_THAT(parsed->help, ::testing::Not(HasSubstr("--output")));
}

TEST_F(CommandLineTest, ScoreChecksItsFlags) {
  ExpectError({"score", "--output=o"}, "--input: say the log");
  ExpectError({"score", "log.csv"}, "--output: say where");
  ExpectError({"score", "--output=o", "a.csv", "b.csv"}, "'b.csv' is one too many");
  ExpectError({"score", "--output=o", "--input=a.csv", "b.csv"}, "'b.csv' is one too many");
  ExpectError({"score", "--output=o", "--input=a.csv", "--max_in_flight=0"}, "--max_in_flight: 0 is not between");
  ExpectError({"score", "--output=o", "--input=a.csv", "--max_in_flight=1", "--server="}, "--server");
}

TEST_F(CommandLineTest, ProgramOfOneCommandNeedsNoName) {
  Command command;
  command.usage = "THING";
  command.flag_files = {__FILE__};
  command.prepare = [this](const std::vector<std::string>& positional) -> absl::StatusOr<Job> {
    positional_ = positional;
    return Job([](std::FILE*) { return absl::OkStatus(); });
  };
  std::string program = "program", flag = "--test_count=7", thing = "thing";
  char* argv[] = {program.data(), flag.data(), thing.data()};
  ASSERT_TRUE(ParseCommandLine(3, argv, {command}).ok());
  EXPECT_EQ(absl::GetFlag(FLAGS_test_count), 7);
  EXPECT_THAT(positional_, ElementsAre("thing"));
}

// The program itself.
struct Outcome {
  int exit_code;
  std::string out;
  std::string messages;
};

Outcome RunClient(const std::string& arguments) {
  const std::string folder = ::testing::TempDir();
  const std::string out = folder + "/client_out", messages = folder + "/client_messages";
  const int status = std::system(absl::StrCat(HILOMOE_CLIENT, " ", arguments, " >", out, " 2>", messages).c_str());
  return {WEXITSTATUS(status), *ReadFile(out), *ReadFile(messages)};
}

TEST(ClientTest, ExitCodes) {
  Outcome outcome = RunClient("score --colour=red");
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_EQ(outcome.messages, "hilomoe-client: unknown flag '--colour'; see --help\n");
  outcome = RunClient("paint");
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_EQ(outcome.messages, "hilomoe-client: unknown command 'paint'; see --help\n");
  outcome = RunClient("score --help");
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_THAT(outcome.out, HasSubstr("--keep_columns"));
  outcome = RunClient("score --output=/dev/null /no/such/log.csv");
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.messages, HasSubstr("hilomoe-client: /no/such/log.csv: "));
}

TEST(ClientTest, ScoresFromStandardInputToStandardOutput) {
  FakeServer server;
  const std::string log = ::testing::TempDir() + "/client_log.csv";
  ASSERT_TRUE(WriteFile(log, "user,item,label\n1,2,0\n3,4,1\n").ok());
  // A link, as /dev/stdout is, to a standard output that is a regular file here.
  const std::string link = ::testing::TempDir() + "/client_stdout";
  std::filesystem::remove(link);
  std::filesystem::create_symlink("/proc/self/fd/1", link);
  for (const std::string& output : {std::string("-"), link}) {
    const Outcome outcome = RunClient(
        absl::StrCat("score --server=", server.address(), " --keep_columns=item --output=", output, " - <", log));
    EXPECT_EQ(outcome.exit_code, 0) << outcome.messages;
    EXPECT_EQ(outcome.out, "item,score\n2,0.0010002\n4,0.0030004\n");
    EXPECT_THAT(outcome.messages, HasSubstr("2 rows in 2 requests"));
    EXPECT_THAT(outcome.messages, HasSubstr("AUC 1.000000"));
    EXPECT_TRUE(std::filesystem::is_symlink(link));
  }
  std::filesystem::remove(link);
  std::filesystem::remove(log);
}

}  // namespace
}  // namespace hilomoe
