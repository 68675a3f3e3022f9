// The program itself: exit codes, log lines, signals.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>
#include <vector>

#include "nlohmann/json.hpp"
#include "test_client.h"
#include "test_model.h"

namespace hilomoe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string ReadAll(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// One run of the program, its stderr kept in a file. Killed with the object.
class ServerProcess {
 public:
  ServerProcess(const std::string& directory, std::vector<std::string> arguments)
      : log_path_(directory + "/stderr"), port_path_(directory + "/ports") {
    arguments.insert(arguments.begin(), HILOMOE_SERVER_BINARY);
    arguments.push_back("--port_file=" + port_path_);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    pid_ = fork();
    if (pid_ == 0) {
      if (freopen(log_path_.c_str(), "w", stderr) == nullptr) _exit(126);
      execv(argv[0], argv.data());
      _exit(127);
    }
  }
  ~ServerProcess() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      Wait();
    }
  }

  // Until it serves.
  bool WaitForPorts() {
    if (!WaitUntil([this] { return std::filesystem::exists(port_path_); })) return false;
    const auto ports = nlohmann::json::parse(ReadAll(port_path_));
    listen_port_ = ports["listen_port"];
    metrics_port_ = ports["metrics_port"];
    return true;
  }
  int listen_port() const { return listen_port_; }
  int metrics_port() const { return metrics_port_; }
  void Signal(int signal) const { kill(pid_, signal); }
  // The exit code; -1 when a signal ended it.
  int Wait() {
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  std::string log() const { return ReadAll(log_path_); }

 private:
  std::string log_path_, port_path_;
  pid_t pid_ = -1;
  int listen_port_ = 0, metrics_port_ = 0;
};

class ServerProcessTest : public ::testing::Test {
 protected:
  std::vector<std::string> Arguments(std::vector<std::string> more = {}) const {
    more.insert(more.end(),
                {"--model_repository=" + root(), "--listen_address=127.0.0.1:0", "--metrics_address=127.0.0.1:0"});
    return more;
  }
  std::string root() const { return directory_.path() + "/models"; }
  const std::string& directory() const { return directory_.path(); }

 private:
  TemporaryDirectory directory_;
};

TEST_F(ServerProcessTest, WrongOptionsExitWith2) {
  for (const char* wrong : {"--no_such_flag=1", "--max_candidates=x", "--max_candidates=0"}) {
    ServerProcess process(directory(), Arguments({wrong}));
    EXPECT_EQ(process.Wait(), 2) << wrong;
    const std::string flag = std::string(wrong).substr(0, std::string(wrong).find('='));
    EXPECT_THAT(process.log(), HasSubstr(flag));
  }
}

TEST_F(ServerProcessTest, NothingToServeExitsWith1AndOneLine) {
  const auto last_line = [](const std::string& log) { return log.substr(log.rfind('\n', log.size() - 2) + 1); };
  {
    ServerProcess missing(directory(), Arguments());
    EXPECT_EQ(missing.Wait(), 1);
    EXPECT_THAT(last_line(missing.log()), HasSubstr(root()));
  }
  std::filesystem::create_directories(root());
  {
    ServerProcess empty(directory(), Arguments());
    EXPECT_EQ(empty.Wait(), 1);
    EXPECT_THAT(last_line(empty.log()), HasSubstr("holds no model"));
  }
  const std::string path = WriteTestModel(root());
  std::filesystem::resize_file(path, 1000);
  ServerProcess corrupt(directory(), Arguments());
  EXPECT_EQ(corrupt.Wait(), 1);
  EXPECT_THAT(last_line(corrupt.log()), HasSubstr(path));
  EXPECT_FALSE(std::filesystem::exists(directory() + "/ports"));
}

// Clients send without pause until health says NOT_SERVING; none of their requests may fail.
TEST_F(ServerProcessTest, TerminationUnderLoadFailsNoRequest) {
  WriteTestModel(root());
  ServerProcess process(directory(), Arguments({"--drain_ms=1500", "--evaluation_threads=2"}));
  ASSERT_TRUE(process.WaitForPorts()) << process.log();
  std::atomic<int> answered{0}, failed{0};
  std::atomic<bool> stop{false};
  std::vector<std::thread> clients;
  for (uint32_t c = 0; c < 4; ++c) {
    clients.emplace_back([&, c] {
      TestClient client(process.listen_port());
      const v1::ScoreRequest request = MakeTestRequest(100, c);
      while (!stop) {
        v1::ScoreResponse response;
        ++(client.Score(request, &response).ok() && response.scores_size() == 100 ? answered : failed);
      }
    });
  }
  TestClient watch(process.listen_port());
  ASSERT_TRUE(WaitUntil([&] { return answered > 100; }));
  EXPECT_EQ(watch.Health(""), "SERVING");
  process.Signal(SIGTERM);
  EXPECT_TRUE(WaitUntil([&] { return watch.Health("") == "NOT_SERVING"; }));
  const int at_drain = answered;
  EXPECT_TRUE(WaitUntil([&] { return answered > at_drain + 20; }));  // serving goes on meanwhile
  stop = true;
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(process.Wait(), 0);
  EXPECT_EQ(failed, 0);

  std::istringstream lines(process.log());
  std::vector<std::string> messages;
  for (std::string line; std::getline(lines, line);) {
    const auto parsed = nlohmann::json::parse(line, nullptr, false);
    ASSERT_TRUE(parsed.is_object()) << line;
    EXPECT_TRUE(parsed.contains("time") && parsed.contains("level")) << line;
    messages.push_back(parsed["message"]);
  }
  EXPECT_THAT(messages, ::testing::ElementsAre("loaded model", "ready", "draining", "stopped"));
}

TEST_F(ServerProcessTest, RequestsUnderWayOutliveTheDrain) {
  WriteTestModel(root(), {.config = SlowModelConfig()});
  ServerProcess process(directory(), Arguments({"--drain_ms=0", "--evaluation_threads=1", "--max_candidates=1000000"}));
  ASSERT_TRUE(process.WaitForPorts()) << process.log();
  std::vector<std::thread> clients;
  std::atomic<int> ok{0};
  for (int c = 0; c < 3; ++c) {
    clients.emplace_back([&] {
      TestClient client(process.listen_port());
      v1::ScoreResponse response;
      ok += client.Score(MakeSlowRequest(6000), &response).ok() ? 1 : 0;
    });
  }
  ASSERT_TRUE(
      WaitUntil([&] { return SeriesValue(Scrape(process.metrics_port()), "hilomoe_requests_in_flight") == 3; }));
  process.Signal(SIGTERM);
  EXPECT_EQ(process.Wait(), 0);
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(ok, 3);
}

TEST_F(ServerProcessTest, ASecondSignalShortensTheDrain) {
  WriteTestModel(root());
  ServerProcess process(directory(), Arguments({"--drain_ms=60000"}));
  ASSERT_TRUE(process.WaitForPorts()) << process.log();
  const auto start = std::chrono::steady_clock::now();
  process.Signal(SIGINT);
  TestClient client(process.listen_port());
  EXPECT_TRUE(WaitUntil([&] { return client.Health("") == "NOT_SERVING"; }));
  process.Signal(SIGTERM);
  EXPECT_EQ(process.Wait(), 0);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30));
}

}  // namespace
}  // namespace hilomoe
