// The repository at work: files come, change and go while models are used.
#include "server/model_repository.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "runtime/column_view.h"
#include "test_client.h"
#include "test_model.h"

namespace hilomoe {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

constexpr auto kLong = std::chrono::hours(1);

class ModelRepositoryTest : public ::testing::Test {
 protected:
  ModelRepositoryTest() {
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
    const fs::path directory = fs::path(root()) / "ctr" / std::to_string(version);
    fs::create_directories(directory);
    fs::rename(path, directory / "model.hilomoe");
    return (directory / "model.hilomoe").string();
  }
  void WritePolicy(const std::string& text) {
    std::ofstream(beside_.path() + "/policy") << text;
    fs::rename(beside_.path() + "/policy", root() + "/ctr/policy.textproto");
  }
  void Delete(uint64_t version) { fs::remove_all(root() + "/ctr/" + std::to_string(version)); }

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

TEST_F(ModelRepositoryTest, VersionsAndLabelsFollowThePolicyFile) {
  for (const uint64_t version : {3, 4, 5}) Publish(version);
  WritePolicy("versions: 3 versions: 4 labels { name: 'stable' version: 3 } labels { name: 'canary' version: 4 }");
  Start();
  EXPECT_THAT(Served(), ElementsAre(3, 4));
  EXPECT_EQ((*Find("stable"))->version(), 3);
  EXPECT_EQ((*Find("canary"))->version(), 4);
  EXPECT_EQ(Find("other").status().code(), absl::StatusCode::kNotFound);
  WritePolicy("versions: 3 versions: 5 labels { name: 'stable' version: 3 } labels { name: 'canary' version: 5 }");
  EXPECT_TRUE(WaitForServed({3, 5}));
  EXPECT_EQ((*Find("canary"))->version(), 5);
  WritePolicy("versions: 3 versions: 5 labels { name: 'stable' version: 5 }");
  EXPECT_TRUE(WaitUntil([&] { return (*Find("stable"))->version() == 5; }));
  WritePolicy("versions: oops");
  EXPECT_TRUE(WaitUntil([&] { return Status(0).state == ModelState::kFailed; }));
  EXPECT_THAT(Served(), ElementsAre(3, 5));
  fs::remove(root() + "/ctr/policy.textproto");
  EXPECT_TRUE(WaitForServed({5}));
  EXPECT_EQ(Find("stable").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ModelRepositoryTest, APolicyOfTheServer) {
  for (const uint64_t version : {3, 4}) Publish(version);
  v1::ModelPolicy policy;
  policy.set_name("ctr");
  policy.add_versions(3);
  options_.policies.push_back(policy);
  policy.set_name("absent");
  options_.policies.push_back(policy);
  Start();
  EXPECT_THAT(Served(), ElementsAre(3));
  EXPECT_EQ(repository_->table()->Find("absent", 0).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Status(3, "absent").state, ModelState::kFailed);
}

TEST_F(ModelRepositoryTest, ARootThatVanishesChangesNothing) {
  Publish(1);
  Start();
  const std::string away = root() + ".away";
  fs::rename(root(), away);
  EXPECT_TRUE(WaitUntil([&] { return Status(0, "").state == ModelState::kFailed; }));
  EXPECT_THAT(Served(), ElementsAre(1));
  fs::create_directories(root());              // where something was mounted
  EXPECT_TRUE(repository_->Load("ctr").ok());  // it is served
  EXPECT_THAT(Status(0, "").reason, HasSubstr("mounted"));
  EXPECT_EQ(repository_->Load("other").code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(repository_->Load("other").message(), AllOf(HasSubstr("'other'"), HasSubstr("cannot be read")));
  EXPECT_THAT(Served(), ElementsAre(1));
  fs::remove_all(root());
  fs::rename(away, root());
  Publish(2);
  EXPECT_TRUE(repository_->Load("ctr").ok());
  EXPECT_THAT(Served(), ElementsAre(2));
  EXPECT_EQ(Status(0, "").model, "none");
  // It is watched again.
  Publish(3);
  EXPECT_TRUE(WaitForServed({3}));
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

TEST_F(ModelRepositoryTest, UnloadLastsUntilLoad) {
  Publish(1);
  WriteTestModel(root(), {.model = "cvr", .version = 5});
  Start();
  ASSERT_TRUE(repository_->Unload("ctr").ok());
  EXPECT_THAT(Served(), ElementsAre(5));
  EXPECT_EQ(Find().status().code(), absl::StatusCode::kUnavailable);
  Publish(2);
  ASSERT_TRUE(WaitForState(2, ModelState::kUnloaded));
  EXPECT_THAT(Served(), ElementsAre(5));
  ASSERT_TRUE(repository_->Load("ctr").ok());
  EXPECT_THAT(Served(), ElementsAre(2, 5));
  EXPECT_TRUE(repository_->Load("ctr").ok());  // nothing to do
  for (const char* name : {"nope", "", "..", "../ctr", "ctr/2"}) {
    EXPECT_EQ(repository_->Load(name).code(), absl::StatusCode::kNotFound) << name;
    EXPECT_EQ(repository_->Unload(name).code(), absl::StatusCode::kNotFound) << name;
  }
  const std::string path = Publish(3);
  ASSERT_TRUE(WaitForServed({3, 5}));
  fs::resize_file(path, 10);
  EXPECT_EQ(repository_->Load("ctr").code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(Served(), ElementsAre(3, 5));  // as it was
  repository_->Stop();
  EXPECT_EQ(repository_->Load("ctr").code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Served(), ElementsAre(3, 5));
}

TEST_F(ModelRepositoryTest, ListenersAreTold) {
  Publish(1);
  Start();
  std::atomic<uint64_t> seen{0};
  std::atomic<bool> failed{false};
  std::atomic<int> calls{0};
  repository_->Listen([&] {
    ++calls;
    const auto model = repository_->table()->Find("ctr", 0);
    if (model.ok()) seen = (*model)->version();
    for (const ModelStatus& status : repository_->Index()) failed = failed || status.state == ModelState::kFailed;
  });
  EXPECT_EQ(seen, 1);
  Publish(2);
  EXPECT_TRUE(WaitUntil([&] { return seen == 2; }));
  WriteTestModel(root(), {.version = 3, .wrong_golden = true});
  EXPECT_TRUE(WaitUntil([&] { return failed.load(); }));
  repository_->Stop();
  const int before = calls;
  Publish(4);
  EXPECT_EQ(calls, before);
}

// The policy of the thread whose name begins so; -1: there is none.
int PolicyOfThread(const std::string& name) {
  for (const auto& task : fs::directory_iterator("/proc/self/task")) {
    std::ifstream file(task.path() / "comm");
    std::string comm;
    std::getline(file, comm);
    if (comm == name) return sched_getscheduler(std::stoi(task.path().filename().string()));
  }
  return -1;
}

TEST_F(ModelRepositoryTest, LoadsInTimeThatIsLeftOver) {
  Publish(1);
  for (const bool idle : {true, false}) {
    options_.load_at_idle_priority = idle;
    Start();
    for (const char* thread : {"model loader", "model disposal"}) {
      EXPECT_TRUE(WaitUntil([&] { return PolicyOfThread(thread) == (idle ? SCHED_IDLE : SCHED_OTHER); })) << thread;
    }
    EXPECT_TRUE(WaitUntil([&] { return PolicyOfThread("model keeper") == SCHED_OTHER; }));
    repository_.reset();
  }
}

TEST_F(ModelRepositoryTest, StopGivesUpALoad) {
  Publish(1);
  std::atomic<bool> loading{false}, stopped{false};
  std::atomic<int> starts{0};
  options_.available_memory = [&] {
    if (++starts == 1) return 1e9;
    loading = true;
    WaitUntil([&] { return stopped.load(); });
    return 1e9;
  };
  Start();
  Publish(2);
  ASSERT_TRUE(WaitUntil([&] { return loading.load(); }));
  EXPECT_EQ(Status(2).state, ModelState::kLoading);
  std::thread stopping([&] { repository_->Stop(); });
  // What is asked for meanwhile is answered, too.
  EXPECT_EQ(repository_->Load("ctr").code(), absl::StatusCode::kUnavailable);
  stopped = true;
  stopping.join();
  EXPECT_THAT(Served(), ElementsAre(1));
  EXPECT_EQ(repository_->Counts()[0].load_failures, 0);
}

}  // namespace
}  // namespace hilomoe
