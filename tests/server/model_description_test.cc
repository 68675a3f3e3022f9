#include "server/model_description.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "google/protobuf/text_format.h"
#include "test_model.h"

namespace hilomoe {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class ModelDescriptionTest : public ::testing::Test {
 protected:
  void Start(const std::string& policy) {
    ModelRepositoryOptions options;
    options.root = directory_.path();
    options.allow_no_models = true;
    if (!policy.empty()) {
      ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(policy, &options.policies.emplace_back()));
    }
    auto repository = ModelRepository::Start(std::move(options));
    ASSERT_TRUE(repository.ok()) << repository.status();
    repository_ = *std::move(repository);
  }
  absl::Status Describe(const std::string& request, v1::GetModelResponse* response) {
    v1::GetModelRequest parsed;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(request, &parsed));
    response->Clear();
    return DescribeModel(*repository_, parsed, response);
  }
  void WriteBrokenVersion(const std::string& model, uint64_t version) {
    const std::filesystem::path folder = std::filesystem::path(directory_.path()) / model / std::to_string(version);
    std::filesystem::create_directories(folder);
    std::ofstream(folder / "model.hilomoe") << "no model";
  }

  TemporaryDirectory directory_;
  std::unique_ptr<ModelRepository> repository_;
};

TEST_F(ModelDescriptionTest, TellsOfTheVersionAndOfAllOthers) {
  WriteTestModel(directory_.path(), {.version = 1});
  WriteTestModel(directory_.path(), {.version = 2, .seed = 2});
  WriteBrokenVersion("ctr", 3);
  WriteTestModel(directory_.path(), {.model = "cvr", .version = 7});
  Start(R"(name: "ctr" versions: [1, 2, 3] labels { name: "stable" version: 1 } labels { name: "canary" version: 2 })");
  v1::GetModelResponse response;
  ASSERT_TRUE(Describe(R"(model: "ctr")", &response).ok());
  EXPECT_EQ(response.model(), "ctr");
  EXPECT_EQ(response.version(), 2);
  EXPECT_EQ(response.config().SerializeAsString(), TestModelConfig().SerializeAsString());
  EXPECT_EQ(response.created_by(), "test");
  EXPECT_EQ(response.embedding_precision(), "float32");
  EXPECT_EQ(response.dense_precision(), "float32");
  EXPECT_EQ(response.expert_precision(), "float32");
  EXPECT_THAT(response.instruction_set(), Not(IsEmpty()));
  EXPECT_EQ(response.memory().kind(), "COPY");
  EXPECT_GT(response.memory().bytes(), 1000);
  ASSERT_EQ(response.versions_size(), 3);
  EXPECT_EQ(response.versions(0).version(), 3);
  EXPECT_EQ(response.versions(0).state(), "FAILED");
  // Whoever sends requests need not know paths.
  EXPECT_THAT(response.versions(0).reason(), AllOf(HasSubstr("DATA_LOSS"), Not(HasSubstr("/"))));
  EXPECT_GE(response.versions(0).failures(), 1);
  EXPECT_EQ(response.versions(1).version(), 2);
  EXPECT_EQ(response.versions(1).state(), "AVAILABLE");
  EXPECT_THAT(response.versions(1).labels(), ElementsAre("canary"));
  EXPECT_GT(response.versions(1).since_seconds(), 1.7e9);
  EXPECT_THAT(response.versions(2).labels(), ElementsAre("stable"));

  ASSERT_TRUE(Describe(R"(model: "ctr" label: "stable")", &response).ok());
  EXPECT_EQ(response.version(), 1);
  EXPECT_EQ(response.versions_size(), 3);
  ASSERT_TRUE(Describe(R"(model: "ctr" version: 1)", &response).ok());
  EXPECT_EQ(response.version(), 1);
}

TEST_F(ModelDescriptionTest, WhatIsNotServedIsAnError) {
  WriteTestModel(directory_.path());
  WriteBrokenVersion("broken", 4);
  Start("");
  v1::GetModelResponse response;
  EXPECT_EQ(Describe("", &response).code(), absl::StatusCode::kInvalidArgument);  // which model?
  EXPECT_EQ(Describe(R"(model: "other")", &response).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Describe(R"(model: "ctr" version: 9)", &response).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Describe(R"(model: "ctr" label: "stable")", &response).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Describe(R"(model: "ctr" version: 1 label: "stable")", &response).code(),
            absl::StatusCode::kInvalidArgument);
  // A model of which nothing can be served says why, unless one of its versions is asked for.
  ASSERT_TRUE(Describe(R"(model: "broken")", &response).ok());
  EXPECT_EQ(response.version(), 0);
  EXPECT_FALSE(response.has_config());
  ASSERT_EQ(response.versions_size(), 1);
  EXPECT_EQ(response.versions(0).state(), "FAILED");
  EXPECT_EQ(Describe(R"(model: "broken" version: 4)", &response).code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace hilomoe
