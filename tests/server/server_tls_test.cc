// TLS and mutual TLS, and certificates that change while the server runs.
#include <gmock/gmock.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "port_fixture.h"
#include "test_certificates.h"

namespace hilomoe {
namespace {

using ::testing::HasSubstr;

class ServerTlsTest : public PortFixture {
 protected:
  ServerTlsTest() : authority_(directory_.path(), "ca"), other_authority_(directory_.path(), "other_ca") {
    authority_.Issue(Path("server"));
    authority_.Issue(Path("client"));
    other_authority_.Issue(Path("other"));
    roots_ = ReadText(authority_.certificate_path());
    other_roots_ = ReadText(other_authority_.certificate_path());
  }
  static std::string Target(int port) { return "127.0.0.1:" + std::to_string(port); }
  // Of a new connection.
  grpc::StatusCode CodeWith(const std::shared_ptr<grpc::ChannelCredentials>& credentials) const {
    TestClient client(Target(server_->listen_port()), credentials);
    return ScoreCode(&client);
  }
  // "SERVING", or why not.
  std::string AdminHealthWith(const std::shared_ptr<grpc::ChannelCredentials>& credentials) const {
    return TestClient(Target(server_->admin_port()), credentials).Health("");
  }
  void ShowCertificateOf(const std::string& prefix) const {
    for (const char* kind : {".crt", ".key"}) std::ofstream(Path("live") + kind) << ReadText(Path(prefix) + kind);
  }

  TestAuthority authority_, other_authority_;
  std::string roots_, other_roots_;
};

TEST_F(ServerTlsTest, ServesTlsAndNothingElse) {
  *config().mutable_tls() = MakeTls(Path("server"));
  config().set_probe_address("127.0.0.1:0");
  Start();
  EXPECT_EQ(CodeWith(MakeTlsCredentials(roots_)), grpc::StatusCode::OK);
  EXPECT_EQ(CodeWith(MakeTlsCredentials(other_roots_)), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(CodeWith(grpc::InsecureChannelCredentials()), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(TestClient(server_->probe_port()).Health(""), "SERVING");  // plaintext
  EXPECT_GT(Value(R"(hilomoe_tls_certificate_expiry_timestamp_seconds{setting="tls"})"), 1.7e9);
  EXPECT_EQ(Value(R"(hilomoe_tls_certificate_refused{setting="tls"})"), 0);
}

TEST_F(ServerTlsTest, OldProtocolsAreRefused) {
  *config().mutable_tls() = MakeTls(Path("server"));
  Start();
  const auto connects = [this](const std::string& version) {
    return std::system(("openssl s_client -" + version + " -cipher DEFAULT@SECLEVEL=0 -alpn h2 -connect " +
                        Target(server_->listen_port()) + " </dev/null >/dev/null 2>&1")
                           .c_str()) == 0;
  };
  EXPECT_FALSE(connects("tls1"));
  EXPECT_FALSE(connects("tls1_1"));
  EXPECT_TRUE(connects("tls1_2"));
  EXPECT_TRUE(connects("tls1_3"));
}

TEST_F(ServerTlsTest, MutualTlsAsksForCertificates) {
  *config().mutable_tls() = MakeTls(Path("server"), &authority_);
  Start();
  EXPECT_EQ(CodeWith(MakeTlsCredentials(roots_, Path("client"))), grpc::StatusCode::OK);
  EXPECT_EQ(CodeWith(MakeTlsCredentials(roots_)), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(CodeWith(MakeTlsCredentials(roots_, Path("other"))), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(ServerTlsTest, ClientCertificatesMayBeOptional) {
  *config().mutable_tls() = MakeTls(Path("server"), &authority_);
  config().mutable_tls()->set_require_client_certificate(false);
  Start();
  EXPECT_EQ(CodeWith(MakeTlsCredentials(roots_, Path("client"))), grpc::StatusCode::OK);
  EXPECT_EQ(CodeWith(MakeTlsCredentials(roots_)), grpc::StatusCode::OK);
  EXPECT_EQ(CodeWith(MakeTlsCredentials(roots_, Path("other"))), grpc::StatusCode::UNAVAILABLE);
}

// The public port's clients are not admins: the ports have authorities of their own.
TEST_F(ServerTlsTest, AdminsHaveTheirOwnAuthority) {
  *config().mutable_tls() = MakeTls(Path("server"), &authority_);
  config().set_admin_address("127.0.0.1:0");
  *config().mutable_admin_tls() = MakeTls(Path("server"), &other_authority_);
  Start();
  EXPECT_EQ(AdminHealthWith(MakeTlsCredentials(roots_, Path("other"))), "SERVING");
  EXPECT_NE(AdminHealthWith(MakeTlsCredentials(roots_, Path("client"))), "SERVING");
  EXPECT_NE(AdminHealthWith(MakeTlsCredentials(roots_)), "SERVING");
  EXPECT_NE(AdminHealthWith(grpc::InsecureChannelCredentials()), "SERVING");
}

TEST_F(ServerTlsTest, WrongFilesEndTheStart) {
  *config().mutable_tls() = MakeTls(Path("nonexistent"));
  EXPECT_THAT(Server::BuildAndStart(options_).status().message(), HasSubstr("tls.certificate_file: "));
  *config().mutable_tls() = MakeTls(Path("server"));
  config().mutable_tls()->set_key_file(Path("client.key"));
  EXPECT_THAT(Server::BuildAndStart(options_).status().message(), HasSubstr("tls.key_file: "));
}

TEST_F(ServerTlsTest, NewConnectionsGetTheNewCertificate) {
  ShowCertificateOf("server");
  *config().mutable_tls() = MakeTls(Path("live"));
  config().set_certificate_poll_ms(3'600'000);  // only when told to
  Start();
  TestClient before(Target(server_->listen_port()), MakeTlsCredentials(roots_));
  EXPECT_EQ(ScoreCode(&before), grpc::StatusCode::OK);
  std::ofstream(Path("live.crt")) << ReadText(Path("other.crt"));
  server_->ReloadCertificates();
  EXPECT_EQ(CodeWith(MakeTlsCredentials(roots_, Path("client"))), grpc::StatusCode::OK);  // a connection of its own
  EXPECT_EQ(Value(R"(hilomoe_tls_certificate_refused{setting="tls"})"), 1);
  std::ofstream(Path("live.key")) << ReadText(Path("other.key"));
  server_->ReloadCertificates();
  EXPECT_EQ(CodeWith(MakeTlsCredentials(other_roots_)), grpc::StatusCode::OK);
  EXPECT_EQ(CodeWith(MakeTlsCredentials(roots_, Path("other"))), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(Value(R"(hilomoe_tls_certificate_refused{setting="tls"})"), 0);
  EXPECT_EQ(ScoreCode(&before), grpc::StatusCode::OK);  // old connections stay
}

TEST_F(ServerTlsTest, RotationUnderLoadLosesNoRequest) {
  ShowCertificateOf("server");
  *config().mutable_tls() = MakeTls(Path("live"));
  config().set_certificate_poll_ms(10);
  config().set_max_connection_age_ms(50);  // so that there are many handshakes
  Start();
  std::atomic<bool> stop{false};
  std::atomic<int> answered{0}, failed{0};
  std::vector<std::thread> clients;
  for (int c = 0; c < 3; ++c) {
    clients.emplace_back([&] {
      TestClient client(Target(server_->listen_port()), MakeTlsCredentials(roots_ + other_roots_));
      while (!stop) ++(ScoreCode(&client) == grpc::StatusCode::OK ? answered : failed);
    });
  }
  for (int i = 0; i < 20; ++i) {
    const int before = answered;
    ShowCertificateOf(i % 2 == 0 ? "other" : "server");  // not atomic: certificate and key do not fit for a moment
    EXPECT_TRUE(WaitUntil([&] { return answered > before + 20; }));
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
  }
  stop = true;
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(failed, 0);
}

}  // namespace
}  // namespace hilomoe
