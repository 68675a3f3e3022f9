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

MATCHER_P2(IsModel, name, version, "") { return arg.model == name && arg.version == static_cast<uint64_t>(version); }

TEST_F(ModelRepositoryTest, ListsTheNewestVersionOfEachModel) {
  Touch("b/9/model.hilomoe");
  Touch("b/10/model.hilomoe");
  Touch("a/00000007/model.hilomoe");
  Touch("README");
  const auto listing = ListModels(root());
  ASSERT_TRUE(listing.ok()) << listing.status();
  EXPECT_THAT(listing->models, ElementsAre(IsModel("a", 7), IsModel("b", 10)));
  EXPECT_EQ(listing->models[1].path, root() + "/b/10/model.hilomoe");
  EXPECT_THAT(listing->skipped, SizeIs(0));
}

TEST_F(ModelRepositoryTest, OtherNamesAreNeverVersions) {
  Touch("ctr/3/model.hilomoe");
  for (const char* name : {"latest", "4x", "-5", "+6", "0", "7.0", "18446744073709551616", "8 "}) {
    Touch(std::string("ctr/") + name + "/model.hilomoe");
  }
  for (const char* hidden : {".9", "9.tmp", "9.tmp.123"}) Touch(std::string("ctr/") + hidden + "/model.hilomoe");
  fs::create_directories(root() + "/ctr/10");                // no file yet
  Touch("ctr/11/model.hilomoe.tmp.77");                      // a file being written
  fs::create_directories(root() + "/ctr/12/model.hilomoe");  // no file at all
  Touch(".hidden/1/model.hilomoe");
  Touch("copy.tmp.5/1/model.hilomoe");
  Touch("bad name/1/model.hilomoe");
  const auto listing = ListModels(root());
  ASSERT_TRUE(listing.ok()) << listing.status();
  EXPECT_THAT(listing->models, ElementsAre(IsModel("ctr", 3)));
  EXPECT_THAT(listing->skipped, SizeIs(8 + 3 + 1));  // the hidden ones in silence
}

TEST_F(ModelRepositoryTest, TheSameVersionTwiceIsRefused) {
  Touch("ctr/3/model.hilomoe");
  Touch("ctr/03/model.hilomoe");
  EXPECT_THAT(ListModels(root()).status().message(), HasSubstr("are the same version"));
}

TEST_F(ModelRepositoryTest, WithoutAModelThereIsNothingToServe) {
  EXPECT_THAT(ListModels(root()).status().message(), AllOf(HasSubstr(root()), HasSubstr("holds no model")));
  EXPECT_EQ(ListModels(root()).status().code(), absl::StatusCode::kFailedPrecondition);
  fs::create_directories(root() + "/ctr/latest");
  EXPECT_THAT(ListModels(root()).status().message(), AllOf(HasSubstr("holds no model"), HasSubstr("ctr/latest")));
  EXPECT_EQ(ListModels(root() + "/missing").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(ListModels(root() + "/missing").status().message(), HasSubstr(root() + "/missing"));
}

TEST_F(ModelRepositoryTest, LoadsAndFinds) {
  WriteTestModel(root(), {.model = "ctr", .version = 2});
  WriteTestModel(root(), {.model = "ctr", .version = 3});
  const auto one = ModelRepository::Load(root(), {.serving = 2});
  ASSERT_TRUE(one.ok()) << one.status();
  EXPECT_EQ((*(*one)->table()->Find("", 0))->version(), 3);  // the only model needs no name

  WriteTestModel(root(), {.config = SlowModelConfig(), .model = "cvr", .version = 1});
  const auto repository = ModelRepository::Load(root(), {.serving = 2});
  ASSERT_TRUE(repository.ok()) << repository.status();
  ModelTableReader reader(**repository);
  const ModelTable& table = reader.Get();
  EXPECT_EQ(&reader.Get(), &table);
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
    const auto repository = ModelRepository::Load(root(), {.serving = 1}, {.memory = wanted});
    EXPECT_TRUE(repository.ok()) << repository.status();
    return (*(*repository)->table()->Find("", 0))->shared_metrics()->facts().memory;
  };
  EXPECT_EQ(memory(v1::ServerConfig::AUTO), "COPY");
  EXPECT_EQ(memory(v1::ServerConfig::COPY), "COPY");
  EXPECT_EQ(memory(v1::ServerConfig::MMAP), "MMAP");
  // No model, but opened: a copy would not have got its memory.
  fs::resize_file(path, uintmax_t{1} << 42);
  EXPECT_EQ(ModelRepository::Load(root(), {.serving = 1}).status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(ModelRepositoryTest, AMappedModelIsBrokenByWhatHappensToItsFile) {
  const std::string path = WriteTestModel(root());
  const auto repository = ModelRepository::Load(root(), {.serving = 1}, {.memory = v1::ServerConfig::MMAP});
  ASSERT_TRUE(repository.ok()) << repository.status();
  const auto model = *(*repository)->table()->Find("", 0);
  EXPECT_TRUE(model->CheckIntact().ok());
  EXPECT_FALSE(model->shared_metrics()->broken());
  const fs::file_time_type before = fs::last_write_time(path);
  fs::last_write_time(path, before + std::chrono::seconds(1));
  EXPECT_EQ(model->CheckIntact().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(model->shared_metrics()->broken());
  fs::last_write_time(path, before);
  EXPECT_THAT(model->CheckIntact().message(), AllOf(HasSubstr("'ctr' version 1"), HasSubstr("overwritten")));
}

TEST_F(ModelRepositoryTest, ABrokenFileIsNamed) {
  const std::string path = WriteTestModel(root());
  fs::resize_file(path, fs::file_size(path) - 1);
  const auto truncated = ModelRepository::Load(root(), {.serving = 1});
  EXPECT_EQ(truncated.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(truncated.status().message(), AllOf(HasSubstr("'ctr' version 1"), HasSubstr(path)));
  std::ofstream(path, std::ios::trunc) << "not a model";
  EXPECT_THAT(ModelRepository::Load(root(), {.serving = 1}).status().message(), HasSubstr(path));
}

TEST_F(ModelRepositoryTest, AModelWithWrongGoldenRowsIsNotServed) {
  WriteTestModel(root(), {.wrong_golden = true});
  const auto repository = ModelRepository::Load(root(), {.serving = 1});
  EXPECT_EQ(repository.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(repository.status().message(), AllOf(HasSubstr("golden"), HasSubstr("model.hilomoe")));
}

}  // namespace
}  // namespace hilomoe
