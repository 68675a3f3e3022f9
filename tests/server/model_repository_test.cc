// The repository at work: files come, change and go while models are used.
#include "server/model_repository.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "repository_fixture.h"
#include "runtime/column_view.h"

namespace hilomoe {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using ModelRepositoryTest = RepositoryFixture;

// Scores of `model` on the workspace of a thread.
std::vector<float> ScoresOf(const ServedModel& model, int thread, const v1::ScoreRequest& request) {
  std::vector<ColumnView> context, candidates;
  AppendColumnViews(request.context(), &context);
  AppendColumnViews(request.candidates(), &candidates);
  std::vector<float> scores(request.num_candidates());
  const absl::Status status = model.predictor().Predict({request.num_candidates(), context, candidates},
                                                        model.workspace(thread), absl::MakeSpan(scores));
  EXPECT_TRUE(status.ok()) << status;
  return scores;
}

TEST_F(ModelRepositoryTest, LoadsAndFinds) {
  options_.threads.serving = 2;
  Publish(2);
  Publish(3);
  Start();
  EXPECT_EQ((*repository_->table()->Find("", 0))->version(), 3);  // the only model needs no name

  WriteTestModel(root(), {.config = SlowModelConfig(), .model = "cvr", .version = 1});
  Start();
  ModelTableReader reader(*repository_);
  EXPECT_EQ((*reader.Find("ctr", 0))->version(), 3);
  const auto table = repository_->table();
  EXPECT_EQ((*table->Find("ctr", 3))->name(), "ctr");
  EXPECT_EQ((*table->Find("cvr", 1))->predictor().file().spec().features().size(), 1);
  EXPECT_NE((*table->Find("ctr", 0))->workspace(0), (*table->Find("ctr", 0))->workspace(1));

  EXPECT_EQ(table->Find("", 0).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(table->Find("ctr", 3, "stable").status().code(), absl::StatusCode::kInvalidArgument);
  for (const auto& missing : {table->Find("ctr", 2), table->Find("nope", 0), reader.Find("nope", 0)}) {
    EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
    EXPECT_THAT(missing.status().message(), AllOf(HasSubstr("'ctr' version 3"), HasSubstr("'cvr' version 1")));
  }
  EXPECT_THAT(table->Find("ctr", 2).status().message(), HasSubstr("version 2 is not served"));
  EXPECT_THAT(table->Find("no\npe", 0).status().message(), HasSubstr("'no\\npe'"));
  EXPECT_THAT(table->Find("ctr", 0, "sta\nble").status().message(), HasSubstr("no label 'sta\\nble'"));
}

TEST_F(ModelRepositoryTest, StartsWithWhatCanBeServed) {
  EXPECT_EQ(StartError().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(StartError().message(), AllOf(HasSubstr(root()), HasSubstr("holds no model")));
  fs::create_directories(root() + "/ctr/latest");
  EXPECT_THAT(StartError().message(), AllOf(HasSubstr("holds no model"), HasSubstr("ctr/latest")));
  const std::string path = Publish(7);
  fs::resize_file(path, fs::file_size(path) - 1);
  EXPECT_EQ(StartError().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(StartError().message(), AllOf(HasSubstr("'ctr' version 7"), HasSubstr(path)));
  // A good model beside it.
  WriteTestModel(root(), {.model = "cvr", .version = 5});
  Start();
  EXPECT_THAT(Served(), ElementsAre(5));
  EXPECT_EQ(Find().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Find().status().message(), HasSubstr("DATA_LOSS"));
  EXPECT_EQ(Status(7).state, ModelState::kFailed);
  // Nor does a request without a name get another model than it would without the failure.
  EXPECT_EQ(repository_->table()->Find("", 0).status().code(), absl::StatusCode::kInvalidArgument);

  options_.root = root() + "/missing";
  EXPECT_EQ(StartError().code(), absl::StatusCode::kNotFound);
  options_.allow_no_models = true;
  EXPECT_EQ(StartError().code(), absl::StatusCode::kNotFound);
}

TEST_F(ModelRepositoryTest, MayStartEmpty) {
  options_.allow_no_models = true;
  Start();
  EXPECT_THAT(Served(), IsEmpty());
  EXPECT_THAT(repository_->Index(), IsEmpty());
  Publish(1);
  EXPECT_TRUE(WaitForServed({1}));
}

TEST_F(ModelRepositoryTest, MapsOrRefusesWhatDoesNotFit) {
  const std::string path = Publish(1);
  const auto memory = [this](v1::ServerConfig::ModelMemory wanted) {
    options_.memory = wanted;
    Start();
    return (*Find())->shared_metrics()->facts().memory;
  };
  EXPECT_EQ(memory(v1::ServerConfig::AUTO), "COPY");
  EXPECT_EQ(memory(v1::ServerConfig::COPY), "COPY");
  EXPECT_EQ(memory(v1::ServerConfig::MMAP), "MMAP");
  // What a test can do about memory.
  std::atomic<double> available{1e9};
  options_.available_memory = [&available] { return available.load(); };
  available = static_cast<double>(fs::file_size(path));
  EXPECT_EQ(memory(v1::ServerConfig::AUTO), "MMAP");
  options_.memory = v1::ServerConfig::COPY;
  EXPECT_EQ(StartError().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(StartError().message(), AllOf(HasSubstr("'ctr' version 1"), HasSubstr("unload a model")));
  // A version that does not fit beside the one it replaces: that one stays, until memory is there again.
  available = 1e9;
  Start();
  available = 1;
  Publish(2);
  ASSERT_TRUE(WaitForState(2, ModelState::kFailed));
  EXPECT_THAT(Status(2).reason, HasSubstr("are available"));
  EXPECT_THAT(Served(), ElementsAre(1));
  available = 1e9;
  EXPECT_TRUE(repository_->Load("ctr").ok());
  EXPECT_THAT(Served(), ElementsAre(2));
  repository_.reset();
}

// The memory of a copy: kept for the next version as long as one is served, else given back.
TEST_F(ModelRepositoryTest, AReplacedVersionLeavesItsMemoryToTheNextOne) {
  const size_t size = fs::file_size(Publish(1));
  Start();
  EXPECT_EQ(repository_->spare_bytes(), 0);
  Publish(2, 2);
  ASSERT_TRUE(WaitForServed({2}));
  EXPECT_TRUE(WaitUntil([&] { return repository_->spare_bytes() == size; }));
  // It counts as available: without it the third version would not fit.
  repository_.reset();
  std::atomic<double> available{1e9};
  options_.available_memory = [&available] { return available.load(); };
  options_.memory = v1::ServerConfig::COPY;
  Start();
  Publish(3, 1);
  ASSERT_TRUE(WaitForServed({3}));
  ASSERT_TRUE(WaitUntil([&] { return repository_->spare_bytes() == size; }));
  available = static_cast<double>(size) / 2;
  Publish(4, 2);
  EXPECT_TRUE(WaitForServed({4}));
  // A file that cannot be loaded takes nothing away.
  ASSERT_TRUE(WaitUntil([&] { return repository_->spare_bytes() == size; }));
  fs::create_directories(root() + "/ctr/5");
  std::ofstream(root() + "/ctr/5/model.hilomoe") << std::string(size, 'x');
  ASSERT_TRUE(WaitForState(5, ModelState::kFailed));
  EXPECT_TRUE(WaitUntil([&] { return repository_->spare_bytes() == size; }));
  ASSERT_TRUE(repository_->Unload("ctr").ok());
  EXPECT_TRUE(WaitUntil([&] { return repository_->spare_bytes() == 0; }));
  repository_.reset();
}

TEST_F(ModelRepositoryTest, AModelWithWrongGoldenRowsIsNotServed) {
  WriteTestModel(root(), {.wrong_golden = true});
  EXPECT_EQ(StartError().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(StartError().message(), AllOf(HasSubstr("golden"), HasSubstr("model.hilomoe")));
}

// Threads score without pause; every score belongs to the version that is said to have given it.
TEST_F(ModelRepositoryTest, SwapsWhileThreadsScore) {
  constexpr int kThreads = 3, kVersions = 12;
  options_.threads.serving = kThreads;
  const v1::ScoreRequest request = MakeTestRequest(10, 1);
  std::vector<std::vector<float>> expected(kVersions + 1);
  for (uint32_t v = 1; v <= kVersions; ++v) {
    const TemporaryDirectory directory;
    expected[v] = DirectScores(WriteTestModel(directory.path(), {.version = v, .seed = v}), request);
  }
  ASSERT_NE(expected[1], expected[2]);
  Publish(1, 1);
  Start();
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0}, missing{0};
  std::atomic<uint64_t> newest{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      ModelTableReader reader(*repository_);
      while (!stop) {
        const auto model = reader.Find("ctr", 0);
        if (!model.ok()) {
          ++missing;
          continue;
        }
        if (ScoresOf(**model, t, request) != expected[(*model)->version()]) ++wrong;
        newest = (*model)->version();
      }
    });
  }
  for (uint32_t v = 2; v <= kVersions; ++v) {
    Publish(v, v);
    EXPECT_TRUE(WaitForServed({v})) << v;
    EXPECT_TRUE(WaitUntil([&] { return newest == v; }));
  }
  // Back to the one before.
  Delete(kVersions);
  EXPECT_TRUE(WaitForServed({kVersions - 1}));
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(missing, 0);
  EXPECT_EQ(wrong, 0);
}

TEST_F(ModelRepositoryTest, AnOldModelGoesThoughNobodyLooksAgain) {
  Publish(1);
  Start();
  ModelTableReader idle(*repository_);
  auto held = *idle.Find("ctr", 0);
  const std::weak_ptr<const ModelMetrics> old = held->shared_metrics();
  Publish(2);
  ASSERT_TRUE(WaitForServed({2}));
  EXPECT_TRUE(WaitForState(1, ModelState::kUnloading));  // a request is under way
  EXPECT_FALSE(old.expired());
  held.reset();
  EXPECT_TRUE(WaitUntil([&] { return old.expired(); }));
  EXPECT_TRUE(WaitForState(1, ModelState::kUnloaded));
}

TEST_F(ModelRepositoryTest, AHalfCopiedFileIsNotServedAndCompletedOneIs) {
  Publish(1);
  const std::string whole = Publish(2, 2);
  std::ifstream file(whole, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  Delete(2);
  Start();
  fs::create_directories(root() + "/ctr/2");
  std::ofstream copy(whole, std::ios::binary);
  copy << bytes.substr(0, bytes.size() / 2) << std::flush;
  ASSERT_TRUE(WaitForState(2, ModelState::kFailed));
  EXPECT_THAT(Status(2).reason, HasSubstr(whole));
  EXPECT_THAT(Served(), ElementsAre(1));
  copy << bytes.substr(bytes.size() / 2);
  copy.close();  // which tells, though the next try was an hour away
  EXPECT_TRUE(WaitForServed({2}));
  // Damage that no size shows.
  Publish(3, 3);
  EXPECT_TRUE(WaitForServed({3}));
  std::string damaged = bytes;
  damaged[damaged.size() - 5] = static_cast<char>(damaged[damaged.size() - 5] ^ 1);
  fs::create_directories(root() + "/ctr/4");
  std::ofstream(root() + "/ctr/4/model.hilomoe", std::ios::binary) << damaged;
  ASSERT_TRUE(WaitUntil([&] { return Status(4).reason.find("checksum") != std::string::npos; }));
  EXPECT_THAT(Served(), ElementsAre(3));
}

// Beside a good older version, which is loaded and served meanwhile.
TEST_F(ModelRepositoryTest, AFileThatIsCopiedSlowlyIsTriedNowAndThen) {
  const std::string path = Publish(2, 2);
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  Delete(2);
  options_.allow_no_models = true;
  options_.poll_interval = std::chrono::milliseconds(1);  // for changes to be seen that inotify is not asked for
  Start();
  fs::create_directories(root() + "/ctr/2");
  std::ofstream copy(path, std::ios::binary);
  const auto start = std::chrono::steady_clock::now();
  for (size_t i = 0; i < 1000; ++i) {
    copy << bytes[i] << std::flush;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (i == 100) Publish(1);
    if (i == 500) {
      EXPECT_TRUE(WaitForServed({1}));
    }
  }
  EXPECT_THAT(Served(), ElementsAre(1));
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  EXPECT_LE(repository_->Counts()[0].load_failures, 2 + 2 * seconds.count());
  copy << bytes.substr(1000);
  copy.close();
  EXPECT_TRUE(WaitForServed({2}));
}

TEST_F(ModelRepositoryTest, AFailedLoadIsTriedAgain) {
  options_.retry_min = std::chrono::milliseconds(5);
  options_.retry_max = std::chrono::milliseconds(20);
  Publish(1);
  Publish(2);
  std::atomic<bool> enough{true};
  options_.memory = v1::ServerConfig::COPY;
  options_.available_memory = [&enough] { return enough ? 1e9 : 1.0; };
  Start();
  enough = false;
  Publish(3);
  EXPECT_TRUE(WaitUntil([&] { return Status(3).failures >= 4; }));
  EXPECT_GE(repository_->Counts()[0].load_failures, 4);
  EXPECT_THAT(Served(), ElementsAre(2));
  enough = true;
  EXPECT_TRUE(WaitForServed({3}));
  repository_.reset();
}

TEST_F(ModelRepositoryTest, AFileReplacedUnderTheSameVersionIsSwapped) {
  const v1::ScoreRequest request = MakeTestRequest(10, 1);
  Publish(1, 1);
  Start();
  const auto before = ScoresOf(**Find(), 0, request);
  const std::string path = Publish(1, 2);
  EXPECT_TRUE(WaitUntil([&] { return ScoresOf(**Find(), 0, request) != before; }));
  EXPECT_EQ(ScoresOf(**Find(), 0, request), DirectScores(path, request));
  EXPECT_THAT(Served(), ElementsAre(1));
}

// Without a request that would notice.
TEST_F(ModelRepositoryTest, AMappedFileThatIsTruncatedIsUnloadedAndComesBack) {
  options_.memory = v1::ServerConfig::MMAP;
  options_.poll_interval = std::chrono::milliseconds(10);
  const std::string path = Publish(1);
  Start();
  const auto held = *Find();
  EXPECT_TRUE(held->CheckIntact().ok());
  fs::resize_file(path, 100);
  EXPECT_TRUE(WaitForServed({}));
  EXPECT_EQ(held->CheckIntact().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(held->CheckIntact().message(), AllOf(HasSubstr("'ctr' version 1"), HasSubstr("overwritten")));
  EXPECT_EQ(Find().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(repository_->Counts()[0].breakages, 1);
  EXPECT_TRUE(WaitForState(1, ModelState::kFailed));
  Publish(1);
  EXPECT_TRUE(WaitForServed({1}));
  EXPECT_TRUE((*Find())->CheckIntact().ok());
  EXPECT_FALSE(held->CheckIntact().ok());  // for good
}

TEST_F(ModelRepositoryTest, ARequestThatFindsAModelBrokenTakesItOut) {
  options_.memory = v1::ServerConfig::MMAP;
  const std::string path = Publish(1);
  Start();
  const auto held = *Find();
  const fs::file_time_type before = fs::last_write_time(path);
  fs::last_write_time(path, before + std::chrono::seconds(1));  // tells nobody
  EXPECT_EQ(held->CheckIntact().code(), absl::StatusCode::kUnavailable);
  // The file is as good as it was, and loaded again.
  EXPECT_TRUE(WaitUntil([&] { return Find().ok() && *Find() != held; }));
  EXPECT_TRUE((*Find())->CheckIntact().ok());
  EXPECT_EQ(repository_->Counts()[0].breakages, 1);
}

TEST_F(ModelRepositoryTest, AModelWhoseFolderGoesIsUnloaded) {
  Publish(1);
  WriteTestModel(root(), {.model = "cvr", .version = 5});
  Start();
  EXPECT_THAT(Served(), ElementsAre(1, 5));
  fs::remove_all(root() + "/ctr");
  EXPECT_TRUE(WaitForServed({5}));
  EXPECT_TRUE(WaitUntil([&] { return Find().status().code() == absl::StatusCode::kNotFound; }));
}

}  // namespace
}  // namespace hilomoe
