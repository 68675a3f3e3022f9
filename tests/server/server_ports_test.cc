// Which port serves what, and what clients may do to it.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "grpc/compression.h"
#include "grpcpp/create_channel.h"
#include "inference/grpc_inference_service.grpc.pb.h"
#include "port_fixture.h"

namespace hilomoe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class ServerPortsTest : public PortFixture {
 protected:
  void StartAllPorts() {
    config().set_admin_address("127.0.0.1:0");
    config().set_probe_address("127.0.0.1:0");
    Start();
  }
};

const char* const kHealthNames[] = {"", "hilomoe.v1.ScoringService", "inference.GRPCInferenceService", "models/ctr"};

TEST_F(ServerPortsTest, OtherPortsAreOffUnlessNamed) {
  Start();
  EXPECT_EQ(server_->admin_port(), 0);
  EXPECT_EQ(server_->probe_port(), 0);
}

TEST_F(ServerPortsTest, AllPortsTellTheSameHealth) {
  StartAllPorts();
  const int ports[] = {server_->listen_port(), server_->admin_port(), server_->probe_port()};
  for (const int port : ports) {
    TestClient client(port);
    for (const char* name : kHealthNames) EXPECT_EQ(client.Health(name), "SERVING") << port << name;
    EXPECT_THAT(client.Health("models/other"), Not(HasSubstr("SERVING")));
  }
  server_->StartDraining();
  for (const int port : ports) {
    TestClient client(port);
    for (const char* name : kHealthNames) EXPECT_EQ(client.Health(name), "NOT_SERVING") << port << name;
  }
}

TEST_F(ServerPortsTest, AllWatchersHearOfTheDrain) {
  StartAllPorts();
  std::vector<std::unique_ptr<HealthWatch>> watches;
  for (int i = 0; i < 100; ++i) {
    for (const int port : {server_->listen_port(), server_->admin_port(), server_->probe_port()}) {
      watches.push_back(std::make_unique<HealthWatch>(port, kHealthNames[i % 4]));
      ASSERT_EQ(watches.back()->status(), "SERVING");
    }
  }
  server_->StartDraining();
  for (const auto& watch : watches) {
    ASSERT_TRUE(watch->Next());
    EXPECT_EQ(watch->status(), "NOT_SERVING");
  }
}

TEST_F(ServerPortsTest, TheProbePortServesHealthAlone) {
  StartAllPorts();
  TestClient probe(server_->probe_port());
  EXPECT_EQ(ScoreCode(&probe), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_THAT(probe.ListServices(), Not(HasSubstr("grpc.health.v1.Health")));
  TestClient admin(server_->admin_port());
  EXPECT_EQ(ScoreCode(&admin), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_THAT(admin.ListServices(),
              AllOf(HasSubstr("inference.GRPCInferenceService"), Not(HasSubstr("ScoringService"))));
}

TEST_F(ServerPortsTest, OnlyAdminsLoadAndUnload) {
  StartAllPorts();
  const auto call = [](int port, bool load) {
    const auto stub = inference::GRPCInferenceService::NewStub(
        grpc::CreateChannel("127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials()));
    grpc::ClientContext context;
    if (load) {
      inference::RepositoryModelLoadRequest request;
      inference::RepositoryModelLoadResponse response;
      request.set_model_name("ctr");
      return stub->RepositoryModelLoad(&context, request, &response).error_code();
    }
    inference::RepositoryModelUnloadRequest request;
    inference::RepositoryModelUnloadResponse response;
    request.set_model_name("ctr");
    return stub->RepositoryModelUnload(&context, request, &response).error_code();
  };
  EXPECT_EQ(call(server_->listen_port(), false), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(call(server_->probe_port(), false), grpc::StatusCode::UNIMPLEMENTED);
  HealthWatch watch(server_->probe_port(), "models/ctr");
  EXPECT_EQ(ScoreCode(client_.get()), grpc::StatusCode::OK);
  EXPECT_EQ(call(server_->admin_port(), false), grpc::StatusCode::OK);
  EXPECT_EQ(ScoreCode(client_.get()), grpc::StatusCode::UNAVAILABLE);
  ASSERT_TRUE(watch.Next());
  EXPECT_EQ(watch.status(), "NOT_SERVING");
  EXPECT_TRUE(WaitUntil([this] { return client_->Health("hilomoe.v1.ScoringService") == "NOT_SERVING"; }));
  EXPECT_EQ(client_->Health(""), "SERVING");
  EXPECT_EQ(call(server_->listen_port(), true), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(call(server_->admin_port(), true), grpc::StatusCode::OK);
  EXPECT_EQ(ScoreCode(client_.get()), grpc::StatusCode::OK);
  ASSERT_TRUE(watch.Next());
  EXPECT_EQ(watch.status(), "SERVING");
}

TEST_F(ServerPortsTest, UnixSocketsServeAndAreNotTakenOver) {
  config().set_listen_address("unix:" + Path("public"));
  config().set_admin_address("unix:" + Path("admin"));
  config().set_probe_address("unix:" + Path("probe"));
  Start();
  TestClient client("unix:" + Path("public"), grpc::InsecureChannelCredentials());
  EXPECT_EQ(ScoreCode(&client), grpc::StatusCode::OK);
  TestClient probe("unix:" + Path("probe"), grpc::InsecureChannelCredentials());
  EXPECT_EQ(probe.Health(""), "SERVING");
  EXPECT_THAT(Server::BuildAndStart(options_).status().message(), HasSubstr("listen_address"));
  EXPECT_EQ(ScoreCode(&client), grpc::StatusCode::OK);
  server_.reset();
  EXPECT_FALSE(std::filesystem::exists(Path("public")));
  // What a killed server leaves is replaced.
  const int dead = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  Path("public").copy(address.sun_path, sizeof(address.sun_path));
  ASSERT_EQ(bind(dead, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  close(dead);
  Start();
  TestClient again("unix:" + Path("public"), grpc::InsecureChannelCredentials());
  EXPECT_EQ(ScoreCode(&again), grpc::StatusCode::OK);
}

TEST_F(ServerPortsTest, TakenAddressesAreNamedBeforeModelsAreLoaded) {
  StartAllPorts();
  ServerOptions second = options_;
  second.config.set_model_repository("/nonexistent");
  second.config.set_probe_address("127.0.0.1:" + std::to_string(server_->listen_port()));
  EXPECT_THAT(Server::BuildAndStart(second).status().message(), AllOf(HasSubstr("probe_address"), HasSubstr("in use")));
  second.config.set_probe_address("");
  second.config.set_admin_address("192.0.2.1:0");
  EXPECT_THAT(Server::BuildAndStart(second).status().message(), HasSubstr("admin_address"));
}

TEST_F(ServerPortsTest, CompressedMessagesAreRefused) {
  config().set_max_request_bytes(1 << 20);
  Start();
  TestClient client(server_->listen_port());
  for (const auto algorithm : {GRPC_COMPRESS_GZIP, GRPC_COMPRESS_DEFLATE}) {
    for (const uint32_t candidates : {3, 9000}) {
      grpc::ClientContext context;
      context.set_compression_algorithm(algorithm);
      v1::ScoreResponse response;
      EXPECT_EQ(client.stub().Score(&context, MakeTestRequest(candidates, 1), &response).error_code(),
                grpc::StatusCode::UNIMPLEMENTED);
    }
  }
  EXPECT_EQ(ScoreCode(&client), grpc::StatusCode::OK);
}

TEST_F(ServerPortsTest, HeadersAreLimited) {
  config().set_max_header_bytes(4096);
  Start();
  TestClient client(server_->listen_port());
  const auto code = [&client](size_t bytes) {
    grpc::ClientContext context;
    context.AddMetadata("note", std::string(bytes, 'x'));
    v1::ScoreResponse response;
    return client.stub().Score(&context, MakeTestRequest(3, 1), &response).error_code();
  };
  EXPECT_EQ(code(2000), grpc::StatusCode::OK);
  EXPECT_EQ(code(5000), grpc::StatusCode::RESOURCE_EXHAUSTED);
  // gRPC may end the connection with it: a call that comes at that moment fails, later ones are on a new one.
  EXPECT_TRUE(WaitUntil([&] { return code(2000) == grpc::StatusCode::OK; }));
}

TEST_F(ServerPortsTest, StreamsOfAConnectionAreLimited) {
  config().set_max_streams_per_connection(1);
  Start();
  TestClient client(server_->listen_port());
  ASSERT_EQ(ScoreCode(&client), grpc::StatusCode::OK);
  {
    const HealthWatch watch(server_->listen_port());  // on the same connection: gRPC shares those of equal channels
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
    v1::ScoreResponse response;
    EXPECT_EQ(client.stub().Score(&context, MakeTestRequest(3, 1), &response).error_code(),
              grpc::StatusCode::DEADLINE_EXCEEDED);
  }
  EXPECT_EQ(ScoreCode(&client), grpc::StatusCode::OK);
}

TEST_F(ServerPortsTest, AgeingConnectionsLoseNoRequest) {
  config().set_max_connection_age_ms(30);
  config().set_max_connection_age_grace_ms(10'000);
  Start();
  std::atomic<int> failed{0};
  std::vector<std::thread> clients;
  for (int c = 0; c < 4; ++c) {
    clients.emplace_back([&] {
      TestClient client(server_->listen_port());
      const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(1);
      while (std::chrono::steady_clock::now() < end) failed += ScoreCode(&client) == grpc::StatusCode::OK ? 0 : 1;
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(failed, 0);
}

// Eight requests of 8 MB at once are more than gRPC may hold: some may be dropped, none may hang, and it recovers.
TEST_F(ServerPortsTest, MemoryOfRequestsIsLimited) {
  config().set_max_grpc_bytes(16 << 20);
  Start();
  v1::ScoreRequest large = MakeTestRequest(3, 1);
  large.add_context()->set_strings(std::string(8 << 20, 'x'));
  std::atomic<int> answered{0};
  std::vector<std::thread> clients;
  for (int c = 0; c < 8; ++c) {
    clients.emplace_back([&] {
      TestClient client(server_->listen_port());
      for (int i = 0; i < 5; ++i) {
        v1::ScoreResponse response;
        answered += client.Score(large, &response).error_code() == grpc::StatusCode::DEADLINE_EXCEEDED ? 0 : 1;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(answered, 8 * 5);
  TestClient after(server_->listen_port());
  EXPECT_TRUE(WaitUntil([&after] { return ScoreCode(&after) == grpc::StatusCode::OK; }));
}

int Connect(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  return fd;
}

// Reads until the other end closes; false when it has not within half a minute.
bool IsClosed(int fd) {
  char bytes[256];
  pollfd polled{fd, POLLIN, 0};
  while (poll(&polled, 1, 30'000) == 1) {
    if (read(fd, bytes, sizeof(bytes)) <= 0) return true;
  }
  return false;
}

constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

TEST_F(ServerPortsTest, ConnectionsThatNeverBeginAreClosed) {
  config().set_handshake_timeout_ms(100);
  config().set_max_connection_age_ms(0);
  config().set_max_connection_idle_ms(0);
  Start();
  // Nothing, half of the opening, all but the settings.
  std::vector<int> fds;
  for (const size_t bytes : {size_t{0}, kPreface.size() / 2, kPreface.size()}) {
    fds.push_back(Connect(server_->listen_port()));
    ASSERT_EQ(write(fds.back(), kPreface.data(), bytes), static_cast<ssize_t>(bytes));
  }
  TestClient client(server_->listen_port());
  EXPECT_EQ(ScoreCode(&client), grpc::StatusCode::OK);
  for (const int fd : fds) {
    EXPECT_TRUE(IsClosed(fd));
    close(fd);
  }
  EXPECT_EQ(ScoreCode(&client), grpc::StatusCode::OK);
}

}  // namespace
}  // namespace hilomoe
