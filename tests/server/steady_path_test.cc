// Once warm, our own work on a request allocates nothing and takes no lock, as long as nobody waits. The test runs what
// lies between a request's bytes and the response message, as Scoring does. gRPC is not part of it.
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "infer_request.h"
#include "lock_count.h"
#include "server/admission_queue.h"
#include "server/infer_request_adapter.h"
#include "server/model_repository.h"
#include "server/request_capture.h"
#include "server/request_log.h"
#include "server/score_request_adapter.h"
#include "test_client.h"
#include "test_model.h"
#include "tests/runtime/allocation_count.h"

namespace hilomoe {
namespace {

struct Protocol {
  const char* name;
  std::unique_ptr<WireProtocol> (*make)();
  std::string (*bytes)(const v1::ScoreRequest& request);
};

template <class Adapter>
std::unique_ptr<WireProtocol> Make() {
  return std::make_unique<Adapter>();
}

const Protocol kProtocols[] = {
    {"native", Make<ScoreRequestAdapter>, [](const v1::ScoreRequest& request) { return request.SerializeAsString(); }},
    // Raw and typed by turns.
    {"v2", Make<InferRequestAdapter>, [](const v1::ScoreRequest& request) {
       return MakeInferRequest(request, TestModelConfig(), request.num_candidates() % 2 == 0).SerializeAsString();
     }}};

class SteadyPathTest : public ::testing::TestWithParam<Protocol> {};

INSTANTIATE_TEST_SUITE_P(Protocols, SteadyPathTest, ::testing::ValuesIn(kProtocols),
                         [](const auto& info) { return info.param.name; });

TEST_P(SteadyPathTest, AllocatesNothingAndTakesNoLock) {
  const TemporaryDirectory directory;
  WriteTestModel(directory.path());
  // Mapped, as more is asked of such a model.
  const auto repository = ModelRepository::Start(
      {.root = directory.path(), .threads = {.routing_sample = 1}, .memory = v1::ServerConfig::MMAP});
  ASSERT_TRUE(repository.ok()) << repository.status();

  std::vector<std::string> requests;
  for (uint32_t i = 0; i < 20; ++i) {
    v1::ScoreRequest request = MakeTestRequest(1 + i * 17 % 100, i);
    request.set_model("ctr");
    requests.push_back(GetParam().bytes(request));
  }
  ModelTableReader models(**repository);
  AdmissionQueue admission(1, 1000);
  AdmissionQueue::Item item;
  RequestHead head;
  // Switched on, but with none of these requests sampled, apart from the first.
  RequestLog log({.one_in = 1'000'000'000, .errors_per_second = 1, .serving_threads = 1});
  auto capture = RequestCapture::Start(
      {.path = directory.path() + "/capture", .one_in = 1'000'000'000, .max_bytes = 1 << 20, .serving_threads = 1});
  ASSERT_TRUE(capture.ok()) << capture.status();
  const grpc::Slice slice(requests[0]);
  const grpc::ByteBuffer buffer(&slice, 1);
  const auto offer = [&] {
    (*capture)->Offer(0, ScoringMethodPath(Method::kScore), RequestCapture::Clock::now(), std::chrono::seconds(1),
                      buffer);
  };
  offer();
  ASSERT_TRUE(WaitUntil([&] { return (*capture)->captured() == 1; }));
  ASSERT_TRUE(log.Wants(0, 0));
  const std::unique_ptr<WireProtocol> adapter = GetParam().make();
  const auto serve = [&](const std::string& bytes) {
    offer();
    google::protobuf::io::ArrayInputStream head_bytes(bytes.data(), static_cast<int>(bytes.size()));
    ASSERT_TRUE(adapter->ReadHead(&head_bytes, &head).ok());
    const auto model = models.Find(head.model, head.version, head.label);
    ASSERT_TRUE(model.ok());
    item.candidates = head.num_candidates;
    ASSERT_EQ(admission.Admit(&item), AdmissionQueue::Decision::kRun);
    google::protobuf::io::ArrayInputStream all_bytes(bytes.data(), static_cast<int>(bytes.size()));
    ASSERT_TRUE(adapter->Parse(&all_bytes, (*model)->predictor().file().spec()).ok());
    const absl::Span<float> scores = adapter->StartResponse();
    ASSERT_TRUE((*model)
                    ->predictor()
                    .Predict(adapter->view(), (*model)->workspace(0), scores, nullptr,
                             [&admission] { return admission.running() != 1; })
                    .ok());
    ASSERT_TRUE((*model)->CheckIntact().ok());
    EXPECT_GT(adapter->FinishResponse(**model, {}).ByteSizeLong(), 4 * head.num_candidates);
    ModelMetrics::Shard& metrics = (*model)->metrics(0);
    metrics.Take(&(*model)->workspace(0)->counts);
    metrics.request_duration_ns[0].Record(1);
    metrics.scores.Record(scores);
    ASSERT_FALSE(log.Wants(0, 0));
    adapter->Recycle();
    ASSERT_EQ(admission.Finish(), nullptr);
  };
  const uint64_t before_warm_up = AllocationsOfThisThread();
  for (int round = 0; round < 2; ++round) {
    for (const std::string& request : requests) serve(request);
  }
  EXPECT_GT(AllocationsOfThisThread(), before_warm_up);  // the counter counts
  const uint64_t locks_before = Locks();
  const auto table = (*repository)->table();
  EXPECT_GT(Locks(), locks_before);  // so does this one
  const uint64_t warm = AllocationsOfThisThread(), locks = Locks();
  for (int round = 0; round < 5; ++round) {
    for (const std::string& request : requests) serve(request);
  }
  EXPECT_EQ(AllocationsOfThisThread(), warm);
  EXPECT_EQ(Locks(), locks);
  EXPECT_GT((*models.Find("ctr", 0))->shared_metrics()->routing()->Sum().rows, 0);
}

}  // namespace
}  // namespace hilomoe
