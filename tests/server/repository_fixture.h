// A repository on disk whose files a test changes while it is served from.
#ifndef HILOMOE_TESTS_SERVER_REPOSITORY_FIXTURE_H_
#define HILOMOE_TESTS_SERVER_REPOSITORY_FIXTURE_H_

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/model_repository.h"
#include "test_client.h"
#include "test_model.h"

namespace hilomoe {

class RepositoryFixture : public ::testing::Test {
 protected:
  static constexpr auto kLong = std::chrono::hours(1);

  RepositoryFixture() {
    options_.root = root();
    options_.poll_interval = kLong;  // what is found, inotify has told
    options_.retry_min = options_.retry_max = kLong;
  }

  void Start() {
    auto repository = ModelRepository::Start(options_);
    ASSERT_TRUE(repository.ok()) << repository.status();
    repository_ = *std::move(repository);
  }
  absl::Status StartError() const { return ModelRepository::Start(options_).status(); }

  // A version appears as a whole; its weights differ by `seed`.
  std::string Publish(uint64_t version, uint32_t seed = 1) {
    TestModelOptions model{.model = "ctr", .version = version, .seed = seed};
    const std::string path = WriteTestModel(beside_.path(), model);
    const std::filesystem::path directory = std::filesystem::path(root()) / "ctr" / std::to_string(version);
    std::filesystem::create_directories(directory);
    std::filesystem::rename(path, directory / "model.hilomoe");
    return (directory / "model.hilomoe").string();
  }
  void WritePolicy(const std::string& text) {
    std::ofstream(beside_.path() + "/policy") << text;
    std::filesystem::rename(beside_.path() + "/policy", root() + "/ctr/policy.textproto");
  }
  void Delete(uint64_t version) { std::filesystem::remove_all(root() + "/ctr/" + std::to_string(version)); }

  absl::StatusOr<std::shared_ptr<const ServedModel>> Find(const std::string& label = "") const {
    return repository_->table()->Find("ctr", 0, label);
  }
  std::vector<uint64_t> Served() const {
    std::vector<uint64_t> versions;
    for (const auto& model : repository_->table()->models()) versions.push_back(model->version());
    return versions;
  }
  bool WaitForServed(const std::vector<uint64_t>& versions) const {
    return WaitUntil([&] { return Served() == versions; });
  }
  ModelStatus Status(uint64_t version, const std::string& model = "ctr") const {
    for (const ModelStatus& status : repository_->Index()) {
      if (status.model == model && status.version == version) return status;
    }
    return {.model = "none"};
  }
  bool WaitForState(uint64_t version, ModelState state) const {
    return WaitUntil([&] { return Status(version).state == state && Status(version).model != "none"; });
  }
  const std::string& root() const { return directory_.path(); }

 private:
  TemporaryDirectory directory_, beside_;

 protected:
  ModelRepositoryOptions options_;
  std::unique_ptr<ModelRepository> repository_;
};

}  // namespace hilomoe

#endif  // HILOMOE_TESTS_SERVER_REPOSITORY_FIXTURE_H_
