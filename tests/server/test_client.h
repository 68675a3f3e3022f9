// What a test says to a running server, beside the generated stub.
#ifndef HILOMOE_TESTS_SERVER_TEST_CLIENT_H_
#define HILOMOE_TESTS_SERVER_TEST_CLIENT_H_

#include <functional>
#include <memory>
#include <string>

#include "grpcpp/channel.h"
#include "grpcpp/security/credentials.h"
#include "hilomoe/v1/scoring_service.grpc.pb.h"

namespace hilomoe {

class TestClient {
 public:
  explicit TestClient(int port);  // of 127.0.0.1, plaintext
  TestClient(const std::string& target, const std::shared_ptr<grpc::ChannelCredentials>& credentials);

  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }
  v1::ScoringService::Stub& stub() { return *stub_; }
  // With a deadline of a minute.
  grpc::Status Score(const v1::ScoreRequest& request, v1::ScoreResponse* response);
  // grpc.health.v1: "SERVING", "NOT_SERVING", or the error.
  std::string Health(const std::string& service);
  // The raw answer of server reflection to "list the services"; their names stand in it.
  std::string ListServices();

 private:
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::ScoringService::Stub> stub_;
};

// A health watch that stays open until the object goes; its first answer has come.
class HealthWatch {
 public:
  explicit HealthWatch(int port, const std::string& service = "");
  ~HealthWatch();

  // The latest answer, as TestClient::Health gives it.
  const std::string& status() const { return status_; }
  // Waits for another one; false when there is none in a minute.
  bool Next();

 private:
  struct Stream;
  std::unique_ptr<Stream> stream_;
  std::string status_;
};

// GET http://127.0.0.1:<port>/metrics: the body.
std::string Scrape(int port);

// The value of the series that is written exactly so, labels included; -1 when it is not there.
double SeriesValue(const std::string& exposition, const std::string& series);

// Polls every millisecond, for at most 30 s. False: it never came true.
bool WaitUntil(const std::function<bool()>& condition);

}  // namespace hilomoe

#endif  // HILOMOE_TESTS_SERVER_TEST_CLIENT_H_
