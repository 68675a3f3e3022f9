// The program itself: exit codes, log lines, signals.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string_view>
#include <thread>
#include <vector>

#include "grpc/compression.h"
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
  // max_fds: the limit of file descriptors; 0 leaves it.
  ServerProcess(const std::string& directory, std::vector<std::string> arguments, rlim_t max_fds = 0)
      : log_path_(directory + "/stderr"), port_path_(directory + "/ports") {
    arguments.insert(arguments.begin(), HILOMOE_SERVER_BINARY);
    arguments.push_back("--port_file=" + port_path_);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    pid_ = fork();
    if (pid_ == 0) {
      const rlimit limit{max_fds, max_fds};
      if (max_fds > 0 && setrlimit(RLIMIT_NOFILE, &limit) != 0) _exit(126);
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
    probe_port_ = ports.value("probe_port", 0);
    return true;
  }
  int listen_port() const { return listen_port_; }
  int metrics_port() const { return metrics_port_; }
  int probe_port() const { return probe_port_; }
  pid_t pid() const { return pid_; }
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
  int listen_port_ = 0, metrics_port_ = 0, probe_port_ = 0;
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

TEST_F(ServerProcessTest, HangUpReadsCertificatesAgain) {
  WriteTestModel(root());
  ServerProcess process(directory(), Arguments({"--drain_ms=0"}));
  ASSERT_TRUE(process.WaitForPorts()) << process.log();
  process.Signal(SIGHUP);
  EXPECT_TRUE(WaitUntil([&] { return process.log().find("SIGHUP") != std::string::npos; }));
  EXPECT_EQ(TestClient(process.listen_port()).Health(""), "SERVING");
  process.Signal(SIGTERM);
  EXPECT_EQ(process.Wait(), 0);
}

TEST_F(ServerProcessTest, TheServiceManagerIsTold) {
  WriteTestModel(root());
  const int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = directory() + "/notify";
  path.copy(address.sun_path, sizeof(address.sun_path));
  ASSERT_EQ(bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  const timeval patience{60, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  const auto receive = [fd] {
    char text[256];
    const ssize_t size = recv(fd, text, sizeof(text), 0);
    return std::string(text, size < 0 ? 0 : static_cast<size_t>(size));
  };
  setenv("NOTIFY_SOCKET", path.c_str(), 1);
  ServerProcess process(directory(), Arguments({"--drain_ms=0"}));
  unsetenv("NOTIFY_SOCKET");
  EXPECT_EQ(receive(), "STATUS=loading models");
  EXPECT_EQ(receive(), "READY=1\nSTATUS=serving");
  ASSERT_TRUE(process.WaitForPorts());
  EXPECT_EQ(TestClient(process.listen_port()).Health(""), "SERVING");
  process.Signal(SIGTERM);
  EXPECT_EQ(receive(), "STOPPING=1\nSTATUS=draining");
  EXPECT_EQ(process.Wait(), 0);
  close(fd);
}

// The start waits for a certificate out of a pipe that nobody writes to.
TEST_F(ServerProcessTest, ASignalEndsALongStart) {
  WriteTestModel(root());
  const std::string pipe = directory() + "/pipe", config = directory() + "/config";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  std::ofstream(config) << "tls { certificate_file: '" << pipe << "' key_file: '" << pipe << "' }";
  ServerProcess process(directory(), Arguments({"--config=" + config, "--metrics_address=127.0.0.1:0"}));
  // Signals are handled once the process says something or other threads have come.
  EXPECT_TRUE(WaitUntil([&] {
    const std::string tasks = "/proc/" + std::to_string(process.pid()) + "/task";
    return std::distance(std::filesystem::directory_iterator(tasks), std::filesystem::directory_iterator()) > 1;
  }));
  process.Signal(SIGTERM);
  EXPECT_EQ(process.Wait(), 0);
  EXPECT_THAT(process.log(), HasSubstr("stopped while starting"));
}

// Open connections; closed with the object.
class Connections {
 public:
  ~Connections() { Close(); }
  void Open(int port, int how_many, std::string_view to_send) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int i = 0; i < how_many; ++i) {
      fds_.push_back(socket(AF_INET, SOCK_STREAM, 0));
      ASSERT_GE(fds_.back(), 0);
      ASSERT_EQ(connect(fds_.back(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
      if (!to_send.empty()) send(fds_.back(), to_send.data(), to_send.size(), MSG_NOSIGNAL);
    }
  }
  // How many the server has not closed.
  int Alive() const {
    int alive = 0;
    for (const int fd : fds_) {
      char byte;
      const ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
      alive += n > 0 || (n < 0 && errno == EAGAIN) ? 1 : 0;
    }
    return alive;
  }
  void Close() {
    for (const int fd : fds_) close(fd);
    fds_.clear();
  }

 private:
  std::vector<int> fds_;
};

// HTTP/2's opening and empty settings.
constexpr std::string_view kOpening("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 33);

grpc::StatusCode ScoreCode(TestClient* client) {
  v1::ScoreResponse response;
  return client->Score(MakeTestRequest(3, 1), &response).error_code();
}

TEST_F(ServerProcessTest, AFloodOfConnectionsLeavesFileDescriptors) {
  WriteTestModel(root());
  ServerProcess process(directory(), Arguments({"--drain_ms=0", "--probe_address=127.0.0.1:0"}), 400);
  ASSERT_TRUE(process.WaitForPorts()) << process.log();
  TestClient before(process.listen_port());
  ASSERT_EQ(ScoreCode(&before), grpc::StatusCode::OK);
  Connections flood;
  flood.Open(process.listen_port(), 600, kOpening);
  EXPECT_TRUE(WaitUntil([&] { return flood.Alive() < 300; }));
  EXPECT_GT(flood.Alive(), 50);
  EXPECT_EQ(ScoreCode(&before), grpc::StatusCode::OK);
  EXPECT_EQ(TestClient(process.probe_port()).Health(""), "SERVING");
  EXPECT_GT(SeriesValue(Scrape(process.metrics_port()), "process_open_fds"), 100);
  EXPECT_THAT(process.log(), HasSubstr("connections are refused"));
  flood.Close();
  EXPECT_TRUE(WaitUntil([&] { return SeriesValue(Scrape(process.metrics_port()), "process_open_fds") < 100; }));
  TestClient after("localhost:" + std::to_string(process.listen_port()), grpc::InsecureChannelCredentials());
  EXPECT_EQ(ScoreCode(&after), grpc::StatusCode::OK);
  process.Signal(SIGTERM);
  EXPECT_EQ(process.Wait(), 0);
}

TEST_F(ServerProcessTest, ThousandsOfIdleConnectionsAreNoBurden) {
  constexpr int kConnections = 5000;
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_max < kConnections + 1000) GTEST_SKIP() << "the limit of file descriptors is " << limit.rlim_max;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  WriteTestModel(root());
  ServerProcess process(directory(), Arguments({"--drain_ms=0"}));
  ASSERT_TRUE(process.WaitForPorts()) << process.log();
  const auto value = [&](const char* series) { return SeriesValue(Scrape(process.metrics_port()), series); };
  const double memory = value("process_resident_memory_bytes"), fds = value("process_open_fds");
  Connections idle;
  idle.Open(process.listen_port(), kConnections, kOpening);
  // A file of its own may have been closed meanwhile.
  EXPECT_TRUE(WaitUntil([&] { return value("process_open_fds") >= fds + kConnections - 10; }));
  EXPECT_EQ(idle.Alive(), kConnections);
  TestClient client(process.listen_port());
  for (int i = 0; i < 100; ++i) EXPECT_EQ(ScoreCode(&client), grpc::StatusCode::OK);
  RecordProperty("bytes_per_connection",
                 static_cast<int>((value("process_resident_memory_bytes") - memory) / kConnections));
  idle.Close();
  EXPECT_TRUE(WaitUntil([&] { return value("process_open_fds") < fds + 10; }));
  process.Signal(SIGTERM);
  EXPECT_EQ(process.Wait(), 0);
}

// Of /proc/<pid>/status.
double PeakMemory(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/status");
  for (std::string word; file >> word;) {
    double kib = 0;
    if (word == "VmHWM:" && file >> kib) return kib * 1024;
  }
  return 0;
}

// 200 MB of zeros in 200 kB, which is less than a request may have.
TEST_F(ServerProcessTest, CompressedMessagesAreNotInflated) {
  WriteTestModel(root());
  ServerProcess process(directory(), Arguments({"--drain_ms=0"}));
  ASSERT_TRUE(process.WaitForPorts()) << process.log();
  TestClient client(process.listen_port());
  ASSERT_EQ(ScoreCode(&client), grpc::StatusCode::OK);
  const double before = PeakMemory(process.pid());
  v1::ScoreRequest bomb = MakeTestRequest(3, 1);
  bomb.add_context()->set_strings(std::string(200 << 20, '\0'));
  for (const auto algorithm : {GRPC_COMPRESS_GZIP, GRPC_COMPRESS_DEFLATE}) {
    grpc::ClientContext context;
    context.set_compression_algorithm(algorithm);
    v1::ScoreResponse response;
    EXPECT_EQ(client.stub().Score(&context, bomb, &response).error_code(), grpc::StatusCode::UNIMPLEMENTED);
  }
  EXPECT_LT(PeakMemory(process.pid()) - before, 50e6);
  EXPECT_EQ(ScoreCode(&client), grpc::StatusCode::OK);
  process.Signal(SIGTERM);
  EXPECT_EQ(process.Wait(), 0);
}

}  // namespace
}  // namespace hilomoe
