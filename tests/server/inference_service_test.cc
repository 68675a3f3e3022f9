// The Open Inference Protocol v2 over loopback.
#include "server/inference_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/server_builder.h"
#include "infer_request.h"
#include "inference/grpc_inference_service.grpc.pb.h"
#include "server/admin_service.h"
#include "server_fixture.h"

namespace hilomoe {
namespace {

using inference::ModelInferRequest;
using inference::ModelInferResponse;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using Stub = inference::GRPCInferenceService::Stub;

// Calls `rpc` with a deadline of a minute.
template <class Request, class Response>
grpc::Status Call(Stub* stub, grpc::Status (Stub::*rpc)(grpc::ClientContext*, const Request&, Response*),
                  const Request& request, Response* response) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  return (stub->*rpc)(&context, request, response);
}

std::vector<float> Floats(const std::string& raw) {
  std::vector<float> floats(raw.size() / sizeof(float));
  std::copy(raw.begin(), raw.end(), reinterpret_cast<char*>(floats.data()));
  return floats;
}

class InferenceServiceTest : public ServerTest {
 protected:
  void Start() {
    ServerTest::Start();
    if (client_ != nullptr) stub_ = inference::GRPCInferenceService::NewStub(client_->channel());
  }
  grpc::Status Infer(const ModelInferRequest& request, ModelInferResponse* response) {
    return Call(stub_.get(), &Stub::ModelInfer, request, response);
  }
  bool ModelIsReady(const std::string& model, const std::string& version) {
    inference::ModelReadyRequest request;
    inference::ModelReadyResponse response;
    request.set_name(model);
    request.set_version(version);
    const grpc::Status status = Call(stub_.get(), &Stub::ModelReady, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.ready();
  }

  std::unique_ptr<Stub> stub_;
};

TEST_F(InferenceServiceTest, ScoresAreThePredictors) {
  path_ = WriteTestModel(directory_.path());
  Start();
  for (const bool raw : {true, false}) {
    for (const uint32_t n : {0, 1, 2, 64, 1000}) {
      const v1::ScoreRequest native = MakeTestRequest(n, n);
      ModelInferRequest request = MakeInferRequest(native, TestModelConfig(), raw);
      request.set_id("a request");
      ModelInferResponse response;
      const grpc::Status status = Infer(request, &response);
      ASSERT_TRUE(status.ok()) << status.error_message();
      EXPECT_EQ(response.model_name(), "ctr");
      EXPECT_EQ(response.model_version(), "1");
      EXPECT_EQ(response.id(), "a request");
      ASSERT_EQ(response.outputs_size(), 1);
      EXPECT_THAT(response.outputs(0).shape(), ElementsAre(n));
      const auto& typed = response.outputs(0).contents().fp32_contents();
      ASSERT_THAT(response.raw_output_contents(), SizeIs(raw ? 1 : 0));
      const std::vector<float> scores =
          raw ? Floats(response.raw_output_contents(0)) : std::vector<float>(typed.begin(), typed.end());
      EXPECT_EQ(scores, DirectScores(path_, native)) << raw << n;
    }
  }
  EXPECT_EQ(Value(R"(hilomoe_requests_total{model="ctr",version="1",method="ModelInfer",code="OK"})"), 10);
}

TEST_F(InferenceServiceTest, ALabelIsAModelVersion) {
  path_ = WriteTestModel(directory_.path());
  const std::string newer = WriteTestModel(directory_.path(), {.version = 2, .seed = 2});
  std::ofstream(directory_.path() + "/ctr/policy.textproto")
      << R"(versions: [1, 2] labels { name: "stable" version: 1 } labels { name: "canary" version: 2 })";
  Start();
  const v1::ScoreRequest native = MakeTestRequest(10, 1);
  for (const auto& [label, version, path] :
       {std::tuple{"stable", "1", path_}, std::tuple{"canary", "2", newer}, std::tuple{"", "2", newer}}) {
    EXPECT_TRUE(ModelIsReady("ctr", label));
    ModelInferRequest request = MakeInferRequest(native, TestModelConfig(), /*raw=*/true);
    request.set_model_version(label);
    ModelInferResponse response;
    const grpc::Status status = Infer(request, &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(response.model_version(), version);
    EXPECT_EQ(Floats(response.raw_output_contents(0)), DirectScores(path, native)) << label;
  }
}

TEST_F(InferenceServiceTest, ErrorsHaveTheirCodes) {
  WriteTestModel(directory_.path(), {.model = "cvr", .version = 5});
  path_ = WriteTestModel(directory_.path());
  options_.config.set_max_candidates(100);
  Start();
  const auto error = [this](const std::function<void(ModelInferRequest*)>& change) {
    ModelInferRequest request = MakeInferRequest(MakeTestRequest(3, 1), TestModelConfig(), false);
    request.set_model_name("ctr");
    change(&request);
    ModelInferResponse response;
    return Infer(request, &response);
  };
  const auto expect = [](const grpc::Status& status, grpc::StatusCode code, const std::string& message) {
    EXPECT_EQ(status.error_code(), code) << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr(message));
  };
  using grpc::StatusCode;
  EXPECT_TRUE(error([](auto*) {}).ok());
  EXPECT_TRUE(error([](auto* r) { r->set_model_version("1"); }).ok());
  expect(error([](auto* r) { r->clear_model_name(); }), StatusCode::INVALID_ARGUMENT, "model");
  expect(error([](auto* r) { r->set_model_name("other"); }), StatusCode::NOT_FOUND, "'other'");
  expect(error([](auto* r) { r->set_model_version("9"); }), StatusCode::NOT_FOUND, "version 9");
  expect(error([](auto* r) { r->set_model_version("nightly"); }), StatusCode::NOT_FOUND, "label 'nightly'");
  expect(error([](auto* r) { r->set_model_version("0"); }), StatusCode::INVALID_ARGUMENT, "model_version");
  expect(error([](auto* r) { r->mutable_inputs(0)->set_datatype("FP32"); }), StatusCode::INVALID_ARGUMENT, "'user'");
  expect(error([](auto* r) { r->mutable_inputs()->DeleteSubrange(0, 1); }), StatusCode::INVALID_ARGUMENT, "'user'");
  expect(error([](auto* r) {
           *r = MakeInferRequest(MakeTestRequest(101, 1), TestModelConfig(), true), r->set_model_name("ctr");
         }),
         StatusCode::INVALID_ARGUMENT, "max_candidates");
  // Of a request that nobody admits, more than it can need is not read.
  inference::ModelReadyRequest ready;
  ready.set_name(std::string(70'000, 'm'));
  inference::ModelReadyResponse ignored;
  expect(Call(stub_.get(), &Stub::ModelReady, ready, &ignored), StatusCode::INVALID_ARGUMENT, "65536");
  EXPECT_TRUE(error([](auto* r) { AddInput("new", "FP32", {3}, r); }).ok());
  EXPECT_EQ(Value(R"(hilomoe_unknown_features_total{model="ctr",version="1"})"), 1);
}

TEST_F(InferenceServiceTest, TheServerTellsWhatItIs) {
  WriteTestModel(directory_.path());
  Start();
  inference::ServerLiveResponse live;
  EXPECT_TRUE(Call(stub_.get(), &Stub::ServerLive, {}, &live).ok());
  EXPECT_TRUE(live.live());
  inference::ServerReadyResponse ready;
  EXPECT_TRUE(Call(stub_.get(), &Stub::ServerReady, {}, &ready).ok());
  EXPECT_TRUE(ready.ready());
  EXPECT_TRUE(ModelIsReady("ctr", ""));
  EXPECT_TRUE(ModelIsReady("ctr", "1"));
  EXPECT_FALSE(ModelIsReady("ctr", "2"));
  EXPECT_FALSE(ModelIsReady("ctr", "stable"));
  EXPECT_FALSE(ModelIsReady("other", ""));
  inference::ServerMetadataResponse metadata;
  EXPECT_TRUE(Call(stub_.get(), &Stub::ServerMetadata, {}, &metadata).ok());
  EXPECT_EQ(metadata.name(), "hilomoe");
  EXPECT_THAT(metadata.version(), Not(IsEmpty()));
  EXPECT_THAT(metadata.extensions(), ElementsAre("model_repository"));
  EXPECT_EQ(client_->Health("inference.GRPCInferenceService"), "SERVING");
  EXPECT_THAT(client_->ListServices(),
              AllOf(HasSubstr("inference.GRPCInferenceService"), HasSubstr("hilomoe.v1.ScoringService")));
  server_->StartDraining();
  EXPECT_TRUE(Call(stub_.get(), &Stub::ServerReady, {}, &ready).ok());
  EXPECT_FALSE(ready.ready());
  EXPECT_TRUE(Call(stub_.get(), &Stub::ServerLive, {}, &live).ok());
  EXPECT_TRUE(live.live());
}

TEST_F(InferenceServiceTest, MetadataDescribesEveryTensor) {
  WriteTestModel(directory_.path());
  Start();
  inference::ModelMetadataRequest request;
  inference::ModelMetadataResponse response;
  request.set_name("ctr");
  ASSERT_TRUE(Call(stub_.get(), &Stub::ModelMetadata, request, &response).ok());
  EXPECT_EQ(response.name(), "ctr");
  EXPECT_THAT(response.versions(), ElementsAre("1"));
  EXPECT_EQ(response.platform(), "hilomoe");
  const auto text = [](const auto& tensors) {
    std::vector<std::string> lines;
    for (const auto& tensor : tensors) {
      EXPECT_THAT(tensor.shape(), SizeIs(1));
      lines.push_back(tensor.name() + " " + tensor.datatype() + " " + std::to_string(tensor.shape(0)));
    }
    return lines;
  };
  EXPECT_THAT(text(response.inputs()),
              ElementsAre("user INT64 1", "age FP32 1", "history INT64 -1", "history.lengths INT32 1", "item INT64 -1",
                          "tags BYTES -1", "tags.lengths INT32 -1", "price FP32 -1"));
  EXPECT_THAT(text(response.outputs()), ElementsAre("scores FP32 -1"));
  EXPECT_EQ(response.properties().at("feature.user"), "CONTEXT CATEGORICAL, required");
  EXPECT_EQ(response.properties().at("feature.history"), "CONTEXT SEQUENCE, at most 10 values count");
  EXPECT_THAT(response.properties().at("inputs"), HasSubstr(".lengths"));
  request.set_name("other");
  EXPECT_EQ(Call(stub_.get(), &Stub::ModelMetadata, request, &response).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(InferenceServiceTest, TheRepositoryIsShownButNotChangedOnThePublicPort) {
  WriteTestModel(directory_.path(), {.model = "cvr", .version = 5});
  WriteTestModel(directory_.path());
  Start();
  inference::RepositoryIndexRequest request;
  inference::RepositoryIndexResponse response;
  request.set_ready(true);
  ASSERT_TRUE(Call(stub_.get(), &Stub::RepositoryIndex, request, &response).ok());
  ASSERT_EQ(response.models_size(), 2);
  EXPECT_EQ(response.models(0).name(), "ctr");
  EXPECT_EQ(response.models(0).version(), "1");
  EXPECT_EQ(response.models(0).state(), "READY");
  EXPECT_EQ(response.models(1).version(), "5");
  request.set_repository_name("/tmp");
  EXPECT_EQ(Call(stub_.get(), &Stub::RepositoryIndex, request, &response).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  inference::RepositoryModelUnloadRequest unload;
  inference::RepositoryModelUnloadResponse unloaded;
  unload.set_model_name("ctr");
  const grpc::Status denied = Call(stub_.get(), &Stub::RepositoryModelUnload, unload, &unloaded);
  EXPECT_EQ(denied.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_THAT(denied.error_message(), HasSubstr("admin_address"));
  inference::RepositoryModelLoadResponse loaded;
  EXPECT_EQ(Call(stub_.get(), &Stub::RepositoryModelLoad, {}, &loaded).error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_TRUE(ModelIsReady("ctr", ""));
}

TEST_F(InferenceServiceTest, BytesThatAreNoRequestAreRefused) {
  WriteTestModel(directory_.path());
  Start();
  inference::ModelReadyRequest request;
  request.GetReflection()->MutableUnknownFields(&request)->AddLengthDelimited(1, "\xFF");
  inference::ModelReadyResponse response;
  const grpc::Status status = Call(stub_.get(), &Stub::ModelReady, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("inference.ModelReadyRequest"));
}

// The admin port's service, on a port of its own.
TEST(AdminServiceTest, LoadsAndUnloads) {
  const TemporaryDirectory directory;
  WriteTestModel(directory.path());
  auto repository = ModelRepository::Start({.root = directory.path()});
  ASSERT_TRUE(repository.ok()) << repository.status();
  ServerMetrics metrics(1);
  metrics.SetReady(true);
  AdminService service(repository->get(), &metrics);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  const auto stub = inference::GRPCInferenceService::NewStub(
      grpc::CreateChannel("127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials()));
  const auto states = [&] {
    inference::RepositoryIndexResponse response;
    EXPECT_TRUE(Call(stub.get(), &Stub::RepositoryIndex, {}, &response).ok());
    std::map<std::string, std::string> states;
    for (const auto& model : response.models()) {
      if (!model.version().empty()) states[model.version()] = model.state();
    }
    return states;
  };
  const auto ready = [&] {
    inference::ServerReadyResponse response;
    EXPECT_TRUE(Call(stub.get(), &Stub::ServerReady, {}, &response).ok());
    return response.ready();
  };
  inference::RepositoryModelLoadRequest load;
  inference::RepositoryModelLoadResponse loaded;
  inference::RepositoryModelUnloadRequest unload;
  inference::RepositoryModelUnloadResponse unloaded;
  load.set_model_name("ctr");
  unload.set_model_name("ctr");
  EXPECT_EQ(states()["1"], "READY");
  EXPECT_TRUE(ready());
  ASSERT_TRUE(Call(stub.get(), &Stub::RepositoryModelUnload, unload, &unloaded).ok());
  EXPECT_NE(states()["1"], "READY");
  EXPECT_FALSE(ready());
  ASSERT_TRUE(Call(stub.get(), &Stub::RepositoryModelLoad, load, &loaded).ok());
  EXPECT_EQ(states()["1"], "READY");
  EXPECT_TRUE(ready());

  load.set_model_name("other");
  EXPECT_EQ(Call(stub.get(), &Stub::RepositoryModelLoad, load, &loaded).error_code(), grpc::StatusCode::NOT_FOUND);
  load.set_model_name("../ctr");
  EXPECT_EQ(Call(stub.get(), &Stub::RepositoryModelLoad, load, &loaded).error_code(), grpc::StatusCode::NOT_FOUND);
  load.set_model_name("ctr");
  (*load.mutable_parameters())["config"].set_string_param("{}");
  EXPECT_EQ(Call(stub.get(), &Stub::RepositoryModelLoad, load, &loaded).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  ModelInferResponse response;
  EXPECT_EQ(Call(stub.get(), &Stub::ModelInfer, {}, &response).error_code(), grpc::StatusCode::UNIMPLEMENTED);
  server->Shutdown();
}

}  // namespace
}  // namespace hilomoe
