#include "server/model_ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "test_model.h"

namespace hilomoe {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Key;
using ::testing::Not;
using ::testing::Pair;
using ::testing::SizeIs;

constexpr auto kNever = ModelLedger::Clock::time_point::max();

// Listings are made up; so is time. The models are real ones.
class ModelLedgerTest : public ::testing::Test {
 protected:
  void SetUp() override { listing_.models["other"].policy = {"p", "versions: 99"}; }  // so that it is never empty

  void Put(uint64_t version, uint64_t inode = 1, uint64_t size = 1) {
    listing_.models["ctr"].versions[version] = {"path", {.inode = inode, .size = size, .modified_ns = 1}, {}};
  }
  void Remove(uint64_t version) { listing_.models["ctr"].versions.erase(version); }
  void SetPolicy(const std::string& text) { listing_.models["ctr"].policy = {"ctr/policy.textproto", text}; }

  // The version that is to be loaded next; 0: none.
  uint64_t Next() {
    job_ = ledger_.NextLoad(now_);
    return job_ ? job_->location.version : 0;
  }
  void Succeed() {
    const std::string path = WriteTestModel(directory_.path(), {.version = job_->location.version});
    auto model = ServedModel::Load({"ctr", job_->location.version, path}, {});
    ASSERT_TRUE(model.ok()) << model.status();
    ledger_.FinishLoad(*job_, std::move(model), now_);
  }
  void Fail(const absl::Status& status = absl::DataLossError("damaged")) { ledger_.FinishLoad(*job_, status, now_); }
  // What is served when the next load, which must be of `version`, has succeeded.
  std::vector<uint64_t> LoadNext(uint64_t version) {
    EXPECT_EQ(Next(), version);
    if (job_) Succeed();
    return Served();
  }
  // Until nothing is left to load.
  void LoadAll() {
    ledger_.Update(listing_, now_);
    while (Next() != 0) Succeed();
    Served();
  }
  std::vector<uint64_t> Served() {
    const auto table = ledger_.Settle();
    std::vector<uint64_t> versions;
    if (table.count("ctr") > 0) {
      for (const auto& version : table.at("ctr").versions) versions.push_back(version.first);
    }
    return versions;
  }
  std::map<std::string, uint64_t, std::less<>> Labels() { return ledger_.Settle().at("ctr").labels; }
  ModelStatus Status(uint64_t version) const {
    for (const ModelStatus& status : ledger_.Index()) {
      if (status.model == "ctr" && status.version == version) return status;
    }
    return {.model = "none"};
  }

  TemporaryDirectory directory_;
  RepositoryListing listing_;
  ModelLedger::Clock::time_point now_{seconds(1000)};
  std::optional<ModelLedger::LoadJob> job_;
  ModelLedger ledger_{{Default(), {}, seconds(1), seconds(3)}};

 private:
  static v1::ModelPolicy Default() {
    v1::ModelPolicy policy;
    policy.set_latest_versions(1);
    return policy;
  }
};

TEST_F(ModelLedgerTest, ANewVersionReplacesTheOldOneWhenItIsLoaded) {
  Put(3);
  LoadAll();
  EXPECT_THAT(Served(), ElementsAre(3));
  Put(4);
  ledger_.Update(listing_, now_);
  EXPECT_THAT(Served(), ElementsAre(3));
  EXPECT_EQ(Status(4).state, ModelState::kLoading);
  ASSERT_EQ(Next(), 4);
  EXPECT_EQ(Next(), 0);  // it is under way
  EXPECT_THAT(Served(), ElementsAre(3));
  job_ = {{"ctr", 4, "path"}, listing_.models["ctr"].versions[4]};
  Succeed();
  EXPECT_THAT(Served(), ElementsAre(4));
  EXPECT_EQ(Status(4).state, ModelState::kAvailable);
  EXPECT_EQ(Status(3).state, ModelState::kUnloaded);
}

TEST_F(ModelLedgerTest, WhatFailsIsPassedOverAndTriedAgainLaterAndLater) {
  Put(3);
  Put(4);
  ledger_.Update(listing_, now_);
  ASSERT_EQ(Next(), 4);
  Fail();
  EXPECT_THAT(LoadNext(3), ElementsAre(3));
  for (const int delay : {1, 2, 3, 3}) {
    EXPECT_EQ(Next(), 0);
    EXPECT_EQ(ledger_.NextRetry(), now_ + seconds(delay));
    EXPECT_EQ(Status(4).state, ModelState::kFailed);
    EXPECT_THAT(Status(4).reason, HasSubstr("damaged"));
    EXPECT_THAT(Status(4).public_reason, AllOf(HasSubstr("DATA_LOSS"), Not(HasSubstr("damaged"))));
    EXPECT_TRUE(ledger_.IsSettled("ctr", now_));
    now_ += seconds(delay);
    EXPECT_FALSE(ledger_.IsSettled("ctr", now_));
    ASSERT_EQ(Next(), 4);
    Fail();
    EXPECT_THAT(Served(), ElementsAre(3));
  }
  EXPECT_EQ(Status(4).failures, 5);
  EXPECT_EQ(ledger_.Counts()[0].load_failures, 5);
  EXPECT_FALSE(ledger_.LoadError("ctr").ok());
  Put(4, /*inode=*/2);  // another file: at once
  ledger_.Update(listing_, now_);
  EXPECT_THAT(Served(), ElementsAre(3));
  EXPECT_THAT(LoadNext(4), ElementsAre(4));
  EXPECT_EQ(ledger_.NextRetry(), kNever);
  EXPECT_TRUE(ledger_.LoadError("ctr").ok());
}

// As of a file that is copied to where it is served from.
TEST_F(ModelLedgerTest, AFileThatChangesFromListingToListingIsNotTriedWithEveryOne) {
  Put(3);
  Put(4);
  ledger_.Update(listing_, now_);
  ASSERT_EQ(Next(), 4);
  Fail();
  ASSERT_EQ(Next(), 3);
  const ModelLedger::LoadJob good = *job_;
  int loads = 0;
  for (uint64_t size = 2; size < 1000; ++size) {  // for ten seconds
    now_ += milliseconds(10);
    Put(4, /*inode=*/1, size);
    ledger_.Update(listing_, now_);
    EXPECT_THAT(Served(), IsEmpty());
    EXPECT_TRUE(ledger_.IsWanted(good.location));
    EXPECT_EQ(Status(4).state, ModelState::kFailed);
    if (Next() == 0) continue;
    ++loads;
    ASSERT_EQ(job_->location.version, 4);
    Fail();
  }
  EXPECT_GE(loads, 10);
  EXPECT_LE(loads, 20);
  job_ = good;
  Succeed();
  EXPECT_THAT(Served(), ElementsAre(3));
  Put(4, /*inode=*/1, /*size=*/5000);  // its end
  ledger_.Update(listing_, now_);
  now_ += milliseconds(500);
  EXPECT_THAT(LoadNext(4), ElementsAre(4));
}

TEST_F(ModelLedgerTest, AServedFileThatLiesThereAgainHasNotFailed) {
  Put(3);
  LoadAll();
  Put(3, /*inode=*/2);
  ledger_.Update(listing_, now_);
  ASSERT_EQ(Next(), 3);
  Fail();
  EXPECT_EQ(Status(3).failures, 1);
  Put(3);
  ledger_.Update(listing_, now_);
  EXPECT_EQ(Next(), 0);
  EXPECT_EQ(Status(3).failures, 0);
  EXPECT_EQ(ledger_.NextRetry(), kNever);
}

TEST_F(ModelLedgerTest, ADeletedVersionStaysUntilAnotherOneTakesOver) {
  Put(3);
  Put(4);
  LoadAll();
  EXPECT_THAT(Served(), ElementsAre(4));
  Remove(4);
  ledger_.Update(listing_, now_);
  EXPECT_THAT(Served(), ElementsAre(4));
  ASSERT_EQ(Next(), 3);
  Fail();
  EXPECT_THAT(Served(), ElementsAre(4));  // nothing else can be served
  now_ += seconds(1);
  EXPECT_THAT(LoadNext(3), ElementsAre(3));
  Remove(3);
  ledger_.Update(listing_, now_);
  EXPECT_THAT(Served(), IsEmpty());
  listing_.models.erase("ctr");
  ledger_.Update(listing_, now_);
  ledger_.Settle();
  EXPECT_FALSE(ledger_.Knows("ctr"));
}

TEST_F(ModelLedgerTest, AFileThatIsReplacedIsLoadedAgain) {
  Put(3);
  LoadAll();
  const auto old = ledger_.Settle().at("ctr").versions.at(3);
  EXPECT_EQ(Next(), 0);
  Put(3, /*inode=*/2);
  ledger_.Update(listing_, now_);
  ASSERT_EQ(Next(), 3);
  Fail();
  EXPECT_EQ(ledger_.Settle().at("ctr").versions.at(3), old);
  EXPECT_EQ(Status(3).state, ModelState::kAvailable);
  EXPECT_THAT(Status(3).reason, HasSubstr("damaged"));
  now_ += seconds(1);
  ASSERT_EQ(Next(), 3);
  Succeed();
  EXPECT_NE(ledger_.Settle().at("ctr").versions.at(3), old);
  EXPECT_EQ(Status(3).reason, "");
}

TEST_F(ModelLedgerTest, NamedVersionsAndWhatIsMissing) {
  for (const uint64_t version : {3, 4, 5}) Put(version);
  SetPolicy("versions: 3 versions: 4");
  LoadAll();
  EXPECT_THAT(Served(), ElementsAre(3, 4));
  EXPECT_EQ(Status(5).state, ModelState::kUnloaded);
  SetPolicy("versions: 3 versions: 6");
  LoadAll();
  EXPECT_THAT(Served(), ElementsAre(3, 4));  // until there is a 6
  EXPECT_EQ(Status(6).state, ModelState::kFailed);
  EXPECT_THAT(ledger_.Settle().at("ctr").unavailable, ElementsAre(Pair(6, HasSubstr("not in the repository"))));
  Put(6);
  LoadAll();
  EXPECT_THAT(Served(), ElementsAre(3, 6));
  Remove(6);  // which is meant
  ledger_.Update(listing_, now_);
  EXPECT_THAT(Served(), ElementsAre(3));
  EXPECT_EQ(Status(6).state, ModelState::kFailed);
}

TEST_F(ModelLedgerTest, LabelsMoveWhenTheirVersionIsLoaded) {
  for (const uint64_t version : {3, 4}) Put(version);
  SetPolicy("labels { name: 'stable' version: 3 } labels { name: 'canary' version: 4 }");
  LoadAll();
  EXPECT_THAT(Labels(), ElementsAre(Pair("canary", 4), Pair("stable", 3)));
  EXPECT_THAT(Status(3).labels, ElementsAre("stable"));
  Put(5);
  SetPolicy("versions: 3 versions: 5 labels { name: 'stable' version: 3 } labels { name: 'canary' version: 5 }");
  ledger_.Update(listing_, now_);
  EXPECT_THAT(Labels(), ElementsAre(Pair("canary", 4), Pair("stable", 3)));
  EXPECT_THAT(Served(), ElementsAre(3, 4));
  ASSERT_EQ(Next(), 5);
  Fail();
  EXPECT_THAT(Labels(), ElementsAre(Pair("canary", 4), Pair("stable", 3)));
  now_ += seconds(1);
  EXPECT_THAT(LoadNext(5), ElementsAre(3, 5));
  EXPECT_THAT(Labels(), ElementsAre(Pair("canary", 5), Pair("stable", 3)));
  SetPolicy("versions: 3 versions: 5 labels { name: 'stable' version: 5 }");  // at once: both are loaded
  ledger_.Update(listing_, now_);
  EXPECT_THAT(Labels(), ElementsAre(Pair("stable", 5)));
}

TEST_F(ModelLedgerTest, ABadPolicyKeepsTheLastGoodOne) {
  for (const uint64_t version : {3, 4}) Put(version);
  SetPolicy("latest_versions: x");
  LoadAll();
  EXPECT_THAT(Served(), IsEmpty());  // it may have excluded what is there
  EXPECT_EQ(Status(0).state, ModelState::kFailed);
  EXPECT_THAT(Status(0).reason, HasSubstr("ctr/policy.textproto:1:"));
  EXPECT_THAT(Status(0).public_reason, AllOf(HasSubstr("policy"), Not(HasSubstr("/"))));
  SetPolicy("versions: 3");
  LoadAll();
  EXPECT_THAT(Served(), ElementsAre(3));
  EXPECT_EQ(Status(0).model, "none");
  for (const char* bad : {"versions: 0", "", "version: 4"}) {
    SetPolicy(bad);
    LoadAll();
    EXPECT_THAT(Served(), ElementsAre(3)) << bad;
    EXPECT_EQ(Status(0).state, ModelState::kFailed) << bad;
    EXPECT_FALSE(ledger_.LoadError("ctr").ok());
  }
  // A file that cannot be read for a while, and is then as it was.
  SetPolicy("versions: 3");
  LoadAll();
  listing_.models["ctr"].policy = {"ctr/policy.textproto", absl::InvalidArgumentError("not a file")};
  LoadAll();
  EXPECT_THAT(Served(), ElementsAre(3));
  EXPECT_EQ(Status(0).state, ModelState::kFailed);
  SetPolicy("versions: 3");
  LoadAll();
  EXPECT_THAT(Served(), ElementsAre(3));
  EXPECT_EQ(Status(0).model, "none");
  EXPECT_TRUE(ledger_.LoadError("ctr").ok());
  listing_.models["ctr"].policy.reset();
  LoadAll();
  EXPECT_THAT(Served(), ElementsAre(4));
  EXPECT_EQ(Status(0).model, "none");
}

TEST_F(ModelLedgerTest, ThePolicyOfTheServerWins) {
  v1::ModelPolicy policy;
  policy.set_name("ctr");
  policy.add_versions(3);
  const ModelLedger ledger({{}, {policy}, seconds(1), seconds(1)});
  EXPECT_TRUE(ledger.Knows("ctr"));
  ModelLedger with_file = ledger;
  for (const uint64_t version : {3, 4}) Put(version);
  SetPolicy("versions: 4");
  with_file.Update(listing_, now_);
  EXPECT_EQ(with_file.NextLoad(now_)->location.version, 3);
}

TEST_F(ModelLedgerTest, WhatCannotBeSeenStays) {
  Put(3);
  LoadAll();
  RepositoryListing unreadable = listing_;
  unreadable.models["ctr"] = {};
  unreadable.models["ctr"].status = absl::UnavailableError("stale handle");
  ledger_.Update(unreadable, now_);
  EXPECT_THAT(Served(), ElementsAre(3));
  EXPECT_THAT(Status(0).reason, HasSubstr("stale handle"));
  ledger_.Update(absl::NotFoundError("no such directory"), now_);
  EXPECT_THAT(Served(), ElementsAre(3));
  EXPECT_THAT(ledger_.Index()[0].reason, HasSubstr("no such directory"));
  EXPECT_EQ(ledger_.Index()[0].model, "");
  ledger_.Update(RepositoryListing(), now_);  // where nothing is mounted
  EXPECT_THAT(Served(), ElementsAre(3));
  EXPECT_THAT(ledger_.Index()[0].reason, HasSubstr("mounted"));
  ledger_.Update(listing_, now_);
  EXPECT_EQ(ledger_.Index()[0].model, "ctr");
  EXPECT_EQ(Status(3).state, ModelState::kAvailable);
}

TEST_F(ModelLedgerTest, AVersionThatCannotBeLookedAtStays) {
  Put(3);
  LoadAll();
  Put(2);
  listing_.models["ctr"].versions[3] = {"path", {}, absl::PermissionDeniedError("cannot look at")};
  ledger_.Update(listing_, now_);
  ASSERT_EQ(Next(), 3);
  Fail(job_->file.status);
  EXPECT_EQ(Next(), 0);
  EXPECT_THAT(Served(), ElementsAre(3));
  EXPECT_THAT(Status(3).reason, HasSubstr("cannot look at"));
  EXPECT_THAT(ledger_.LoadError("ctr").message(), HasSubstr("cannot look at"));
  Put(3);
  ledger_.Update(listing_, now_);
  EXPECT_EQ(Next(), 0);
  EXPECT_EQ(Status(3).reason, "");
  EXPECT_TRUE(ledger_.LoadError("ctr").ok());
}

TEST_F(ModelLedgerTest, ANewModelWhoseDirectoryCannotBeReadSaysSo) {
  listing_.models["ctr"].status = absl::UnavailableError("stale handle");
  LoadAll();
  EXPECT_THAT(ledger_.Settle().at("ctr").reason, HasSubstr("its directory cannot be read"));
  EXPECT_THAT(ledger_.LoadError("ctr").message(), HasSubstr("stale handle"));
}

TEST_F(ModelLedgerTest, UnloadLastsUntilResume) {
  Put(3);
  LoadAll();
  const auto held = ledger_.Settle().at("ctr").versions.at(3);
  ledger_.Unload("ctr");
  EXPECT_THAT(Served(), IsEmpty());
  EXPECT_EQ(Status(3).state, ModelState::kUnloading);  // the test holds it
  Put(4);
  ledger_.Update(listing_, now_);
  EXPECT_EQ(Next(), 0);
  EXPECT_EQ(Status(4).state, ModelState::kUnloaded);
  EXPECT_THAT(ledger_.Settle().at("ctr").reason, HasSubstr("unloaded by request"));
  EXPECT_EQ(ledger_.LoadError("ctr").code(), absl::StatusCode::kAborted);
  listing_.models.erase("ctr");
  ledger_.Update(listing_, now_);
  ledger_.Settle();
  EXPECT_TRUE(ledger_.Knows("ctr"));
  Put(4);
  ledger_.Update(listing_, now_);
  EXPECT_EQ(Next(), 0);
  ledger_.Resume("ctr");
  EXPECT_THAT(LoadNext(4), ElementsAre(4));
}

TEST_F(ModelLedgerTest, ADeletedModelIsShownWhileRequestsAreUnderWay) {
  Put(3);
  LoadAll();
  auto held = ledger_.Settle().at("ctr").versions.at(3);
  listing_.models.erase("ctr");
  ledger_.Update(listing_, now_);
  EXPECT_THAT(Served(), IsEmpty());
  EXPECT_FALSE(ledger_.Knows("ctr"));
  EXPECT_EQ(Status(3).state, ModelState::kUnloading);
  held.reset();
  EXPECT_EQ(Status(3).model, "none");
}

TEST_F(ModelLedgerTest, LoadsThatAreNotWantedAnyMore) {
  Put(3);
  ledger_.Update(listing_, now_);
  ASSERT_EQ(Next(), 3);
  EXPECT_TRUE(ledger_.IsWanted(job_->location));
  ledger_.Unload("ctr");
  EXPECT_FALSE(ledger_.IsWanted(job_->location));
  Succeed();
  EXPECT_THAT(Served(), IsEmpty());
  ledger_.Resume("ctr");
  ASSERT_EQ(Next(), 3);
  Fail(absl::CancelledError("given up"));
  EXPECT_EQ(Status(3).failures, 0);
  ASSERT_EQ(Next(), 3);
  Put(3, /*inode=*/2);  // while it is loaded
  ledger_.Update(listing_, now_);
  Fail();
  ASSERT_EQ(Next(), 3);
  EXPECT_EQ(job_->file.identity.inode, 2);
}

TEST_F(ModelLedgerTest, WhatDidNotFitIsTriedWhenMemoryComesBack) {
  Put(3);
  ledger_.Update(listing_, now_);
  ASSERT_EQ(Next(), 3);
  Fail(absl::ResourceExhaustedError("too large"));
  EXPECT_EQ(Next(), 0);
  ledger_.RetryForMemory();
  EXPECT_EQ(Next(), 3);
}

TEST_F(ModelLedgerTest, GoodOnesAreLoadedBeforeWhatHasFailed) {
  Put(3);
  listing_.models["other"] = {};
  listing_.models["zeta"].versions[1] = {"path", {}, {}};
  ledger_.Update(listing_, now_);
  ASSERT_EQ(Next(), 3);
  Fail();
  now_ += seconds(100);
  ASSERT_EQ(Next(), 1);
  EXPECT_EQ(job_->location.model, "zeta");
  EXPECT_FALSE(ledger_.Knows("other"));  // an empty folder is no model
}

// Whoever waits for a load waits for what lies there, not for what was being read when it was written.
TEST_F(ModelLedgerTest, AFileThatWasWrittenWhileItWasReadIsNotSettled) {
  Put(3, 1, 100);
  ledger_.Update(listing_, now_);
  ASSERT_EQ(Next(), 3);
  Put(3, 1, 200);
  ledger_.Update(listing_, now_);
  ledger_.Resume("ctr");
  Fail();
  ledger_.Settle();
  EXPECT_FALSE(ledger_.IsSettled("ctr", now_));
  now_ += milliseconds(500);
  ASSERT_EQ(Next(), 3);
  Fail();
  ledger_.Settle();
  EXPECT_TRUE(ledger_.IsSettled("ctr", now_));
  EXPECT_EQ(ledger_.LoadError("ctr").code(), absl::StatusCode::kDataLoss);
}

TEST_F(ModelLedgerTest, ARetryShowsAtOnce) {
  Put(3);
  ledger_.Update(listing_, now_);
  ASSERT_EQ(Next(), 3);
  Fail();
  ledger_.Settle();
  EXPECT_EQ(Status(3).state, ModelState::kFailed);
  now_ += seconds(1);
  ASSERT_EQ(Next(), 3);
  EXPECT_EQ(Status(3).state, ModelState::kLoading);
}

}  // namespace
}  // namespace hilomoe
