// Models are swapped in a server while clients score. Also run under the thread sanitizer.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <thread>
#include <vector>

#include "server/server.h"
#include "test_client.h"
#include "test_model.h"

namespace hilomoe {
namespace {

namespace fs = std::filesystem;

// 10 by default; HILOMOE_SWAPS=1000 for a soak.
uint32_t Swaps() {
  const char* const text = std::getenv("HILOMOE_SWAPS");
  return text == nullptr ? 10 : static_cast<uint32_t>(std::stoul(text));
}

class SwapTest : public ::testing::TestWithParam<v1::ServerConfig::ModelMemory> {};

TEST_P(SwapTest, NoRequestFailsAndEveryScoreIsItsVersions) {
  constexpr int kClients = 4;
  constexpr uint32_t kDifferent = 5;  // weights
  const uint32_t swaps = Swaps();
  const TemporaryDirectory root, beside;
  const auto publish = [&](uint32_t version) {
    const std::string path = WriteTestModel(beside.path(), {.version = version, .seed = version % kDifferent});
    fs::create_directories(root.path() + "/ctr");
    fs::rename(fs::path(path).parent_path(), root.path() + "/ctr/" + std::to_string(version));
  };
  // More than one tile, so that helpers work on it.
  v1::ScoreRequest request = MakeTestRequest(200, 1);
  request.set_model("ctr");
  std::vector<std::vector<float>> expected;
  for (uint32_t seed = 0; seed < kDifferent; ++seed) {
    expected.push_back(DirectScores(WriteTestModel(beside.path(), {.model = "expected", .seed = seed}), request));
  }

  ServerOptions options;
  options.config.set_model_repository(root.path());
  options.config.set_listen_address("127.0.0.1:0");
  options.config.set_metrics_address("127.0.0.1:0");
  options.config.set_evaluation_threads(2);
  options.config.set_model_memory(GetParam());
  options.config.set_load_at_idle_priority(false);  // nothing is left over here
  publish(1);
  auto server = Server::BuildAndStart(options);
  ASSERT_TRUE(server.ok()) << server.status();
  const auto value = [&](const std::string& series) { return SeriesValue(Scrape((*server)->metrics_port()), series); };
  const auto state = [](uint32_t version, const char* name) {
    return "hilomoe_model_state{model=\"ctr\",version=\"" + std::to_string(version) + "\",state=\"" + name + "\"}";
  };

  std::atomic<bool> stop{false};
  std::atomic<int> failed{0}, wrong{0};
  std::atomic<uint64_t> newest{0};
  std::vector<std::thread> clients;
  for (int c = 0; c < kClients; ++c) {
    clients.emplace_back([&] {
      TestClient client((*server)->listen_port());
      while (!stop) {
        v1::ScoreResponse response;
        if (const grpc::Status status = client.Score(request, &response); !status.ok()) {
          ADD_FAILURE() << status.error_message();
          ++failed;
        }
        const std::vector<float> scores(response.scores().begin(), response.scores().end());
        if (scores != expected[response.version() % kDifferent]) ++wrong;
        uint64_t before = newest;
        while (before < response.version() && !newest.compare_exchange_weak(before, response.version())) {
        }
      }
    });
  }
  for (uint32_t version = 2; version <= swaps + 1; ++version) {
    publish(version);
    EXPECT_TRUE(WaitUntil([&] { return newest >= version || failed > 0; })) << version;
    if (version > 3) fs::remove_all(root.path() + "/ctr/" + std::to_string(version - 2));
  }
  const uint32_t last = swaps + 1;
  EXPECT_TRUE(WaitUntil([&] { return value(state(last - 1, "UNLOADING")) == -1; }));
  stop = true;
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(failed, 0);
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(value(state(last, "AVAILABLE")), 1);
  EXPECT_EQ(value("hilomoe_model_load_failures_total{model=\"ctr\"}"), 0);
  EXPECT_EQ(value("hilomoe_model_repository_readable"), 1);
  // Series of what is not served any more have gone.
  EXPECT_TRUE(WaitUntil([&] {
    return Scrape((*server)->metrics_port()).find("version=\"" + std::to_string(last - 1) + "\"") == std::string::npos;
  }));
}

TEST(StreamSwapTest, AnIdleStreamKeepsNoOldModel) {
  const TemporaryDirectory root;
  WriteTestModel(root.path());
  ServerOptions options;
  options.config.set_model_repository(root.path());
  options.config.set_listen_address("127.0.0.1:0");
  options.config.set_metrics_address("127.0.0.1:0");
  options.config.set_evaluation_threads(1);
  auto server = Server::BuildAndStart(options);
  ASSERT_TRUE(server.ok()) << server.status();
  TestClient client((*server)->listen_port());
  grpc::ClientContext context;
  const auto stream = client.stub().ScoreStream(&context);
  v1::ScoreResponse response;
  ASSERT_TRUE(stream->Write(MakeTestRequest(3, 1)));
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.version(), 1);
  WriteTestModel(root.path(), {.version = 2});
  EXPECT_TRUE(WaitUntil([&] {
    const std::string text = Scrape((*server)->metrics_port());
    return SeriesValue(text, R"(hilomoe_model_state{model="ctr",version="2",state="AVAILABLE"})") == 1 &&
           text.find(R"(version="1")") == std::string::npos;
  }));
  ASSERT_TRUE(stream->Write(MakeTestRequest(3, 1)));
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.version(), 2);
  EXPECT_TRUE(stream->WritesDone());
  EXPECT_TRUE(stream->Finish().ok());
}

INSTANTIATE_TEST_SUITE_P(Memories, SwapTest, ::testing::Values(v1::ServerConfig::COPY, v1::ServerConfig::MMAP),
                         [](const auto& info) { return v1::ServerConfig::ModelMemory_Name(info.param); });

}  // namespace
}  // namespace hilomoe
