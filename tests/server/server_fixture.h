// A server with the test model in the test's process.
#ifndef HILOMOE_TESTS_SERVER_SERVER_FIXTURE_H_
#define HILOMOE_TESTS_SERVER_SERVER_FIXTURE_H_

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "server/server.h"
#include "test_client.h"
#include "test_model.h"

namespace hilomoe {

class ServerFixture : public ::testing::Test {
 protected:
  ServerFixture() {
    config().set_model_repository(Path("models"));
    config().set_listen_address("127.0.0.1:0");
    config().set_metrics_address("127.0.0.1:0");
    config().set_evaluation_threads(2);
    WriteTestModel(Path("models"));
  }

  v1::ServerConfig& config() { return options_.config; }
  std::string Path(const std::string& name) const { return directory_.path() + "/" + name; }
  void Start() {
    auto server = Server::BuildAndStart(options_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  double Value(const std::string& series) const { return SeriesValue(Scrape(server_->metrics_port()), series); }
  // OK, or what the answer was.
  static grpc::StatusCode ScoreCode(TestClient* client) {
    v1::ScoreResponse response;
    return client->Score(MakeTestRequest(3, 1), &response).error_code();
  }

  TemporaryDirectory directory_;
  ServerOptions options_;
  std::unique_ptr<Server> server_;
};

}  // namespace hilomoe

#endif  // HILOMOE_TESTS_SERVER_SERVER_FIXTURE_H_
