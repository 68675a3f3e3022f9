// A server and its clients in one process, over loopback.
#ifndef HILOMOE_TESTS_SERVER_SERVER_FIXTURE_H_
#define HILOMOE_TESTS_SERVER_SERVER_FIXTURE_H_

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "server/server.h"
#include "test_client.h"
#include "test_model.h"

namespace hilomoe {

class ServerTest : public ::testing::Test {
 protected:
  ServerTest() {
    options_.config.set_model_repository(directory_.path());
    options_.config.set_listen_address("127.0.0.1:0");
    options_.config.set_metrics_address("127.0.0.1:0");
    options_.config.set_evaluation_threads(2);
  }

  void Start() {
    auto server = Server::BuildAndStart(options_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    client_ = std::make_unique<TestClient>(server_->listen_port());
  }
  void StartWithTestModel() {
    path_ = WriteTestModel(directory_.path());
    Start();
  }
  // One evaluation at a time, and a model that takes its time.
  void StartWithSlowModel() {
    path_ = WriteTestModel(directory_.path(), {.config = SlowModelConfig()});
    options_.config.set_evaluation_threads(1);
    options_.config.set_max_candidates(1'000'000);
    Start();
  }

  double Value(const std::string& series) const { return SeriesValue(Scrape(server_->metrics_port()), series); }
  double Requests(const std::string& code) const {
    return Value(R"(hilomoe_requests_total{model="ctr",version="1",method="Score",code=")" + code + "\"}");
  }
  bool WaitForEvaluation() const {
    return WaitUntil([this] { return Value("hilomoe_evaluations_running") == 1; });
  }

  TemporaryDirectory directory_;
  ServerOptions options_;
  std::string path_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<TestClient> client_;
};

// So many take the slow model a noticeable time.
inline constexpr uint32_t kSlowCandidates = 40'000;

inline std::vector<float> Scores(const v1::ScoreResponse& response) {
  return {response.scores().begin(), response.scores().end()};
}

}  // namespace hilomoe

#endif  // HILOMOE_TESTS_SERVER_SERVER_FIXTURE_H_
