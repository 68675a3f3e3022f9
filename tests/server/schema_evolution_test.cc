// Two versions of a model with different features, and clients made for either: each client works with each version, as
// roll-outs and rollbacks need, and both protocols agree.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "google/protobuf/text_format.h"
#include "infer_request.h"
#include "inference/grpc_inference_service.grpc.pb.h"
#include "server_fixture.h"

namespace hilomoe {
namespace {

using ::testing::HasSubstr;

template <class Message>
Message FromText(const std::string& text) {
  Message message;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message)) << text;
  return message;
}

constexpr char kShared[] = R"(
  features { id: 1 name: "user" kind: CATEGORICAL scope: CONTEXT id_type: INT64 embedding_width: 4 required: true }
  features { id: 4 name: "item" kind: CATEGORICAL scope: CANDIDATE id_type: INT64 embedding_width: 4 }
  network { blocks { width: 8 experts { layers: 2 experts_per_layer: 4 } } })";

// Version 1 has a price, version 2 has a city with a default, tags without one, a quality that came instead of the
// price and is required of no-one, and calls a feature otherwise.
const v1::ModelConfig& OldConfig() {
  static const auto* config = new v1::ModelConfig(FromText<v1::ModelConfig>(std::string(kShared) + R"(
    features { id: 6 name: "price" kind: NUMERIC scope: CANDIDATE embedding_width: 4 default_value: "2.5" }
    features { id: 9 name: "hour" kind: NUMERIC scope: CONTEXT embedding_width: 0 })"));
  return *config;
}
const v1::ModelConfig& NewConfig() {
  static const auto* config = new v1::ModelConfig(FromText<v1::ModelConfig>(std::string(kShared) + R"(
    features { id: 7 name: "city" kind: CATEGORICAL scope: CONTEXT id_type: STRING embedding_width: 4
               default_value: "Oslo" vocabulary { hash_buckets: 20 } }
    features { id: 8 name: "tags" kind: BAG scope: CANDIDATE id_type: STRING embedding_width: 4
               vocabulary { hash_buckets: 20 } }
    features { id: 9 name: "hour_of_day" kind: NUMERIC scope: CONTEXT embedding_width: 0 })"));
  return *config;
}

constexpr char kOldRequest[] = R"(
  num_candidates: 2
  context { feature: "user" ids: 3 } context { feature: "hour" numbers: 0.5 }
  candidates { feature: "item" ids: [101, 102] } candidates { feature: "price" numbers: [1, 9] })";
constexpr char kNewRequest[] = R"(
  num_candidates: 2
  context { feature: "user" ids: 3 } context { feature: "city" strings: "Rome" string_bytes: 4 }
  context { feature: "hour_of_day" numbers: 0.5 }
  candidates { feature: "item" ids: [101, 102] }
  candidates { feature: "tags" strings: "abc" string_bytes: [1, 2] row_lengths: [2, 0] })";

class SchemaEvolutionTest : public ServerTest {
 protected:
  SchemaEvolutionTest() {
    paths_[0] = WriteTestModel(directory_.path(), {.config = OldConfig(), .version = 1, .seed = 1});
    paths_[1] = WriteTestModel(directory_.path(), {.config = NewConfig(), .version = 2, .seed = 2});
    options_.config.set_latest_versions(2);
    Start();
    if (client_ != nullptr) v2_ = inference::GRPCInferenceService::NewStub(client_->channel());
  }

  grpc::Status Score(v1::ScoreRequest request, uint64_t version, std::vector<float>* scores) {
    request.set_version(version);
    v1::ScoreResponse response;
    const grpc::Status status = client_->Score(request, &response);
    *scores = Scores(response);
    return status;
  }
  grpc::Status Infer(inference::ModelInferRequest request, uint64_t version, std::vector<float>* scores) {
    request.set_model_version(std::to_string(version));
    grpc::ClientContext context;
    inference::ModelInferResponse response;
    const grpc::Status status = v2_->ModelInfer(&context, request, &response);
    scores->clear();
    if (!status.ok()) return status;
    const auto& contents = response.outputs(0).contents().fp32_contents();
    scores->assign(contents.begin(), contents.end());
    return status;
  }
  // A request of a client that knows `config` gives what `expected`, which says all that version `version` knows,
  // gives.
  void ExpectScores(const std::string& text, const v1::ModelConfig& config, uint64_t version,
                    const std::string& expected) {
    const std::vector<float> direct = DirectScores(paths_[version - 1], FromText<v1::ScoreRequest>(expected));
    std::vector<float> scores;
    const auto request = FromText<v1::ScoreRequest>(text);
    const grpc::Status native = Score(request, version, &scores);
    EXPECT_TRUE(native.ok()) << native.error_message();
    EXPECT_EQ(scores, direct);
    const grpc::Status v2 = Infer(MakeInferRequest(request, config, false), version, &scores);
    EXPECT_TRUE(v2.ok()) << v2.error_message();
    EXPECT_EQ(scores, direct);
  }
  void ExpectRefusal(const std::string& text, const v1::ModelConfig& config, uint64_t version,
                     const std::string& name) {
    std::vector<float> scores;
    const auto request = FromText<v1::ScoreRequest>(text);
    for (const grpc::Status& status :
         {Score(request, version, &scores), Infer(MakeInferRequest(request, config, false), version, &scores)}) {
      EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << status.error_message();
      EXPECT_THAT(status.error_message(), HasSubstr("'" + name + "'"));
    }
  }
  double Unknown(int version) const {
    return Value("hilomoe_unknown_features_total{model=\"ctr\",version=\"" + std::to_string(version) + "\"}");
  }

  std::string paths_[2];
  std::unique_ptr<inference::GRPCInferenceService::Stub> v2_;
};

TEST_F(SchemaEvolutionTest, EveryClientWorksWithItsOwnVersion) {
  ExpectScores(kOldRequest, OldConfig(), 1, kOldRequest);
  ExpectScores(kNewRequest, NewConfig(), 2, kNewRequest);
  EXPECT_EQ(Unknown(1), 0);
  EXPECT_EQ(Unknown(2), 0);
}

TEST_F(SchemaEvolutionTest, AnOldClientWorksWithANewModel) {
  // The city takes its default, tags and hour_of_day are missing; price and hour are ignored, and counted: twice, as
  // two protocols say them.
  ExpectScores(kOldRequest, OldConfig(), 2, R"(
    num_candidates: 2
    context { feature: "user" ids: 3 } context { feature: "city" strings: "Oslo" string_bytes: 4 }
    context { feature: "hour_of_day" row_lengths: 0 }
    candidates { feature: "item" ids: [101, 102] } candidates { feature: "tags" row_lengths: [0, 0] })");
  EXPECT_EQ(Unknown(2), 4);
}

TEST_F(SchemaEvolutionTest, ANewClientWorksWithAnOldModel) {
  ExpectScores(kNewRequest, NewConfig(), 1, R"(
    num_candidates: 2
    context { feature: "user" ids: 3 } context { feature: "hour" row_lengths: 0 }
    candidates { feature: "item" ids: [101, 102] } candidates { feature: "price" numbers: [2.5, 2.5] })");
  EXPECT_EQ(Unknown(1), 6);  // city, tags, hour_of_day
}

TEST_F(SchemaEvolutionTest, NumericIdsOutliveNames) {
  std::vector<float> by_id, by_name;
  auto request = FromText<v1::ScoreRequest>(kNewRequest);
  EXPECT_TRUE(Score(request, 2, &by_name).ok());
  request.mutable_context(2)->clear_feature();
  request.mutable_context(2)->set_feature_id(9);
  EXPECT_TRUE(Score(request, 2, &by_id).ok());
  EXPECT_EQ(by_id, by_name);
  // Version 1 calls it otherwise.
  EXPECT_TRUE(Score(request, 1, &by_id).ok());
  EXPECT_EQ(by_id, DirectScores(paths_[0], FromText<v1::ScoreRequest>(R"(
    num_candidates: 2 context { feature: "user" ids: 3 } context { feature: "hour" numbers: 0.5 }
    candidates { feature: "item" ids: [101, 102] })")));
}

TEST_F(SchemaEvolutionTest, WhatIsRequiredOrOfAnotherTypeIsRefused) {
  ExpectRefusal(R"(num_candidates: 1 candidates { feature: "item" ids: 101 })", OldConfig(), 2, "user");
  // A client for which the item became a string.
  v1::ModelConfig strings = OldConfig();
  strings.mutable_features(1)->set_id_type(v1::Feature::STRING);
  ExpectRefusal(R"(num_candidates: 1 context { feature: "user" ids: 3 }
                   candidates { feature: "item" strings: "x" string_bytes: 1 })",
                strings, 2, "item");
  // One for which the user belongs to the candidates is flat; one for which the item belongs to the context is wrong.
  std::vector<float> scores;
  EXPECT_TRUE(Score(FromText<v1::ScoreRequest>(R"(num_candidates: 2 candidates { feature: "user" ids: [3, 4] }
                                                  candidates { feature: "item" ids: [101, 102] })"),
                    2, &scores)
                  .ok());
  EXPECT_EQ(Score(FromText<v1::ScoreRequest>(R"(num_candidates: 2 context { feature: "user" ids: 3 }
                                                context { feature: "item" ids: 101 })"),
                  2, &scores)
                .error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
}

}  // namespace
}  // namespace hilomoe
