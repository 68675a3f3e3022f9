// A server with the test model whose ports, certificates and limits a test sets.
#ifndef HILOMOE_TESTS_SERVER_PORT_FIXTURE_H_
#define HILOMOE_TESTS_SERVER_PORT_FIXTURE_H_

#include <string>

#include "server_fixture.h"

namespace hilomoe {

class PortFixture : public ServerTest {
 protected:
  PortFixture() {
    config().set_model_repository(Path("models"));
    WriteTestModel(Path("models"));
  }

  v1::ServerConfig& config() { return options_.config; }
  std::string Path(const std::string& name) const { return directory_.path() + "/" + name; }
  static grpc::StatusCode ScoreCode(TestClient* client) {
    v1::ScoreResponse response;
    return client->Score(MakeTestRequest(3, 1), &response).error_code();
  }
};

}  // namespace hilomoe

#endif  // HILOMOE_TESTS_SERVER_PORT_FIXTURE_H_
