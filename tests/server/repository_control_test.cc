// Who decides what the repository serves, and who learns of it: policies, commands, listeners; and its own threads.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "repository_fixture.h"
#include "server/model_repository.h"

namespace hilomoe {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using RepositoryControlTest = RepositoryFixture;

TEST_F(RepositoryControlTest, VersionsAndLabelsFollowThePolicyFile) {
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

TEST_F(RepositoryControlTest, APolicyOfTheServer) {
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

TEST_F(RepositoryControlTest, ARootThatVanishesChangesNothing) {
  Publish(1);
  Start();
  const std::string away = root() + ".away";
  fs::rename(root(), away);
  EXPECT_TRUE(WaitUntil([&] { return Status(0, "").state == ModelState::kFailed; }));
  EXPECT_THAT(Served(), ElementsAre(1));
  fs::create_directories(root());  // where something was mounted
  // It is served, but whether as it should be is unknown.
  EXPECT_EQ(repository_->Load("ctr").code(), absl::StatusCode::kUnavailable);
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

// A Load waits for a listing, an Unload does not.
TEST_F(RepositoryControlTest, ALoadDoesNotUndoALaterUnload) {
  Publish(1);
  Start();
  std::atomic<bool> hold{true}, held{false};
  repository_->Listen([&] {
    if (Status(2).model == "none") return;
    held = true;  // right after a listing
    while (hold) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  });
  Publish(2);
  ASSERT_TRUE(WaitUntil([&] { return held.load(); }));
  absl::Status loaded, unloaded;
  std::thread load([&] { loaded = repository_->Load("ctr"); });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  std::thread unload([&] { unloaded = repository_->Unload("ctr"); });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  hold = false;
  load.join();
  unload.join();
  EXPECT_EQ(loaded.code(), absl::StatusCode::kAborted) << loaded;
  EXPECT_TRUE(unloaded.ok()) << unloaded;
  Publish(3);
  EXPECT_TRUE(WaitForState(3, ModelState::kUnloaded));
  EXPECT_THAT(Served(), ElementsAre());
  repository_.reset();  // before what it calls
}

TEST_F(RepositoryControlTest, UnloadLastsUntilLoad) {
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

TEST_F(RepositoryControlTest, ListenersAreTold) {
  Publish(1);
  Start();
  std::atomic<uint64_t> seen{0};
  std::atomic<bool> failed{false};
  repository_->Listen([&] {
    const auto model = repository_->table()->Find("ctr", 0);
    if (model.ok()) seen = (*model)->version();
    for (const ModelStatus& status : repository_->Index()) failed = failed || status.state == ModelState::kFailed;
  });
  EXPECT_EQ(seen, 1);
  Publish(2);
  EXPECT_TRUE(WaitUntil([&] { return seen == 2; }));
  WriteTestModel(root(), {.version = 3, .wrong_golden = true});
  EXPECT_TRUE(WaitUntil([&] { return failed.load(); }));
}

TEST_F(RepositoryControlTest, StopWaitsForAListenerThatIsBeingTold) {
  Publish(1);
  Start();
  std::atomic<bool> published{false}, telling{false}, stopping{false};
  repository_->Listen([&] {
    if (!published) return;
    telling = true;
    WaitUntil([&] { return stopping.load(); });
    std::this_thread::sleep_for(std::chrono::milliseconds(50));  // time for a Stop that would not wait
    telling = false;
  });
  published = true;
  Publish(2);
  ASSERT_TRUE(WaitUntil([&] { return telling.load(); }));
  stopping = true;
  repository_->Stop();
  EXPECT_FALSE(telling);
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

TEST_F(RepositoryControlTest, LoadsInTimeThatIsLeftOver) {
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

TEST_F(RepositoryControlTest, StopGivesUpALoad) {
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
