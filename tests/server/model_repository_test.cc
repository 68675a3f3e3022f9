#include "server/model_repository.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "test_model.h"

namespace hilomoe {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class ModelRepositoryTest : public ::testing::Test {
 protected:
  // An empty file where a model file would stand.
  void Touch(const std::string& path) const {
    fs::create_directories((fs::path(root()) / path).parent_path());
    std::ofstream(fs::path(root()) / path);
  }
  const std::string& root() const { return directory_.path(); }

 private:
  TemporaryDirectory directory_;
};

TEST_F(ModelRepositoryTest, LoadsAndFinds) {
  WriteTestModel(root(), {.model = "ctr", .version = 2});
  WriteTestModel(root(), {.model = "ctr", .version = 3});
  const auto one = ModelRepository::Start({.root = root(), .threads = {.serving = 2}});
  ASSERT_TRUE(one.ok()) << one.status();
  EXPECT_EQ((*(*one)->table()->Find("", 0))->version(), 3);  // the only model needs no name

  WriteTestModel(root(), {.config = SlowModelConfig(), .model = "cvr", .version = 1});
  const auto repository = ModelRepository::Start({.root = root(), .threads = {.serving = 2}});
  ASSERT_TRUE(repository.ok()) << repository.status();
  ModelTableReader reader(**repository);
  EXPECT_EQ((*reader.Find("ctr", 0))->version(), 3);
  const auto shared = (*repository)->table();
  const ModelTable& table = *shared;
  EXPECT_EQ((*table.Find("ctr", 0))->version(), 3);
  EXPECT_EQ((*table.Find("ctr", 3))->name(), "ctr");
  EXPECT_EQ((*table.Find("cvr", 1))->predictor().file().spec().features().size(), 1);
  EXPECT_NE((*table.Find("ctr", 0))->workspace(0), (*table.Find("ctr", 0))->workspace(1));

  EXPECT_EQ(table.Find("", 0).status().code(), absl::StatusCode::kInvalidArgument);
  for (const auto& missing : {table.Find("ctr", 2), table.Find("nope", 0)}) {
    EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
    EXPECT_THAT(missing.status().message(), AllOf(HasSubstr("'ctr' version 3"), HasSubstr("'cvr' version 1")));
  }
  EXPECT_THAT(table.Find("ctr", 2).status().message(), HasSubstr("version 2 is not served"));
  EXPECT_THAT(table.Find("no\npe", 0).status().message(), HasSubstr("'no\\npe'"));
}

TEST_F(ModelRepositoryTest, MapsWhatDoesNotFit) {
  const std::string path = WriteTestModel(root());
  const auto memory = [this](v1::ServerConfig::ModelMemory wanted) {
    const auto repository = ModelRepository::Start({.root = root(), .memory = wanted});
    EXPECT_TRUE(repository.ok()) << repository.status();
    return (*(*repository)->table()->Find("", 0))->shared_metrics()->facts().memory;
  };
  EXPECT_EQ(memory(v1::ServerConfig::AUTO), "COPY");
  EXPECT_EQ(memory(v1::ServerConfig::COPY), "COPY");
  EXPECT_EQ(memory(v1::ServerConfig::MMAP), "MMAP");
  // No model, but opened: a copy would not have got its memory.
  fs::resize_file(path, uintmax_t{1} << 42);
  EXPECT_EQ(ModelRepository::Start({.root = root()}).status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(ModelRepositoryTest, AMappedModelIsBrokenByWhatHappensToItsFile) {
  const std::string path = WriteTestModel(root());
  const auto repository = ModelRepository::Start({.root = root(), .memory = v1::ServerConfig::MMAP});
  ASSERT_TRUE(repository.ok()) << repository.status();
  const auto model = *(*repository)->table()->Find("", 0);
  EXPECT_TRUE(model->CheckIntact().ok());
  const fs::file_time_type before = fs::last_write_time(path);
  fs::last_write_time(path, before + std::chrono::seconds(1));
  EXPECT_EQ(model->CheckIntact().code(), absl::StatusCode::kUnavailable);
  fs::last_write_time(path, before);
  EXPECT_THAT(model->CheckIntact().message(), AllOf(HasSubstr("'ctr' version 1"), HasSubstr("overwritten")));
}

TEST_F(ModelRepositoryTest, ABrokenFileIsNamed) {
  const std::string path = WriteTestModel(root());
  fs::resize_file(path, fs::file_size(path) - 1);
  const auto truncated = ModelRepository::Start({.root = root()});
  EXPECT_EQ(truncated.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(truncated.status().message(), AllOf(HasSubstr("'ctr' version 1"), HasSubstr(path)));
  std::ofstream(path, std::ios::trunc) << "not a model";
  EXPECT_THAT(ModelRepository::Start({.root = root()}).status().message(), HasSubstr(path));
}

TEST_F(ModelRepositoryTest, AModelWithWrongGoldenRowsIsNotServed) {
  WriteTestModel(root(), {.wrong_golden = true});
  const auto repository = ModelRepository::Start({.root = root()});
  EXPECT_EQ(repository.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(repository.status().message(), AllOf(HasSubstr("golden"), HasSubstr("model.hilomoe")));
}

}  // namespace
}  // namespace hilomoe
