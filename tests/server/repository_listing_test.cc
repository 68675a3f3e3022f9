#include "server/repository_listing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "test_model.h"

namespace hilomoe {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Key;
using ::testing::SizeIs;

class RepositoryListingTest : public ::testing::Test {
 protected:
  void Write(const std::string& path, const std::string& text = "") const {
    fs::create_directories((fs::path(root()) / path).parent_path());
    std::ofstream(fs::path(root()) / path) << text;
  }
  const std::string& root() const { return directory_.path(); }

 private:
  TemporaryDirectory directory_;
};

TEST_F(RepositoryListingTest, ListsModelsVersionsAndPolicies) {
  Write("b/9/model.hilomoe");
  Write("b/10/model.hilomoe", "x");
  Write("a/00000007/model.hilomoe");
  Write("a/policy.textproto", "latest_versions: 2");
  Write("README");
  std::vector<std::string> directories;
  const auto listing = ListRepository(root(), [&](const std::string& name) { directories.push_back(name); });
  ASSERT_TRUE(listing.ok()) << listing.status();
  EXPECT_THAT(listing->models, ElementsAre(Key("a"), Key("b")));
  EXPECT_THAT(listing->models.at("a").versions, ElementsAre(Key(7)));
  EXPECT_THAT(listing->models.at("b").versions, ElementsAre(Key(9), Key(10)));
  const ListedFile& file = listing->models.at("b").versions.at(10);
  EXPECT_EQ(file.path, root() + "/b/10/model.hilomoe");
  EXPECT_EQ(file.identity.size, 1);
  EXPECT_TRUE(file.status.ok());
  EXPECT_EQ(*listing->models.at("a").policy->text, "latest_versions: 2");
  EXPECT_FALSE(listing->models.at("b").policy.has_value());
  EXPECT_THAT(listing->skipped, SizeIs(0));
  EXPECT_THAT(directories, ElementsAre(root(), root() + "/a", root() + "/a/00000007", root() + "/b", root() + "/b/10",
                                       root() + "/b/9"));
}

TEST_F(RepositoryListingTest, OtherNamesAreNeverVersions) {
  Write("ctr/3/model.hilomoe");
  for (const char* name : {"latest", "4x", "-5", "+6", "0", "7.0", "18446744073709551616", "8 "}) {
    Write(std::string("ctr/") + name + "/model.hilomoe");
  }
  for (const char* hidden : {".9", "9.tmp", "9.tmp.123"}) Write(std::string("ctr/") + hidden + "/model.hilomoe");
  fs::create_directories(root() + "/ctr/10");                // no file yet
  Write("ctr/11/model.hilomoe.tmp.77");                      // a file being written
  fs::create_directories(root() + "/ctr/12/model.hilomoe");  // no file at all
  Write(".hidden/1/model.hilomoe");
  Write("copy.tmp.5/1/model.hilomoe");
  Write("bad name/1/model.hilomoe");
  const auto listing = ListRepository(root());
  ASSERT_TRUE(listing.ok()) << listing.status();
  EXPECT_THAT(listing->models, ElementsAre(Key("ctr")));
  EXPECT_THAT(listing->models.at("ctr").versions, ElementsAre(Key(3)));
  EXPECT_THAT(listing->skipped, SizeIs(8 + 3 + 1));  // the hidden ones in silence
  EXPECT_THAT(listing->skipped, Contains(AllOf(HasSubstr("ctr/latest"), HasSubstr("positive number"))));
}

TEST_F(RepositoryListingTest, TheSameVersionTwiceMustNotBeLoaded) {
  Write("ctr/3/model.hilomoe");
  Write("ctr/03/model.hilomoe");
  Write("ctr/2/model.hilomoe");
  const auto listing = ListRepository(root());
  ASSERT_TRUE(listing.ok()) << listing.status();
  const auto& versions = listing->models.at("ctr").versions;
  EXPECT_THAT(versions.at(3).status.message(), HasSubstr("are the same version"));
  EXPECT_TRUE(versions.at(2).status.ok());
}

TEST_F(RepositoryListingTest, AFileThatChangesHasAnotherIdentity) {
  Write("ctr/1/model.hilomoe", "1234");
  const auto identity = [this] { return ListRepository(root())->models.at("ctr").versions.at(1).identity; };
  const FileIdentity first = identity();
  EXPECT_EQ(identity(), first);
  const std::string path = root() + "/ctr/1/model.hilomoe";
  const fs::file_time_type written = fs::last_write_time(path);
  fs::resize_file(path, 3);
  fs::last_write_time(path, written);
  EXPECT_FALSE(identity() == first);
  fs::resize_file(path, 4);
  fs::last_write_time(path, written + std::chrono::milliseconds(1));
  EXPECT_FALSE(identity() == first);
  fs::last_write_time(path, written);
  EXPECT_EQ(identity(), first);
  Write("ctr/1/new", "1234");
  fs::last_write_time(root() + "/ctr/1/new", written);
  fs::rename(root() + "/ctr/1/new", path);
  EXPECT_FALSE(identity() == first);
}

TEST_F(RepositoryListingTest, WhatCannotBeReadIsSaid) {
  EXPECT_EQ(ListRepository(root() + "/missing").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(ListRepository(root() + "/missing").status().message(), HasSubstr(root() + "/missing"));
  // A pipe must not be waited for.
  fs::create_directories(root() + "/ctr");
  ASSERT_EQ(mkfifo((root() + "/ctr/policy.textproto").c_str(), 0600), 0);
  const auto listing = ListRepository(root());
  ASSERT_TRUE(listing.ok()) << listing.status();
  EXPECT_THAT(listing->models.at("ctr").policy->text.status().message(), HasSubstr("not a file"));
  // What is in a model's directory is unknown.
  fs::create_directory_symlink("loop", root() + "/loop");
  EXPECT_FALSE(ListRepository(root())->models.at("loop").status.ok());
}

TEST_F(RepositoryListingTest, WhatCannotBeLookedAtDoesNotHideTheRest) {
  Write("ctr/3/model.hilomoe");
  Write("ctr/policy.textproto", "latest_versions: 2");
  fs::create_directory_symlink("4", root() + "/ctr/4");
  auto listing = ListRepository(root());
  ASSERT_TRUE(listing.ok()) << listing.status();
  const ListedModel& model = listing->models.at("ctr");
  EXPECT_TRUE(model.status.ok());
  ASSERT_THAT(model.versions, ElementsAre(Key(3), Key(4)));
  EXPECT_TRUE(model.versions.at(3).status.ok());
  EXPECT_THAT(model.versions.at(4).status.message(), HasSubstr(root() + "/ctr/4/model.hilomoe"));
  EXPECT_TRUE(model.policy->text.ok());
  // Nor does a policy hide versions.
  fs::remove(root() + "/ctr/policy.textproto");
  fs::create_symlink("policy.textproto", root() + "/ctr/policy.textproto");
  listing = ListRepository(root());
  EXPECT_TRUE(listing->models.at("ctr").status.ok());
  EXPECT_THAT(listing->models.at("ctr").versions, ElementsAre(Key(3), Key(4)));
  EXPECT_FALSE(listing->models.at("ctr").policy->text.ok());
}

// As of a mount that goes.
TEST_F(RepositoryListingTest, WhatIsMissingBelowARootThatGoesIsNotDeleted) {
  for (const bool replaced : {false, true}) {
    for (const char* at : {"", "/ctr", "/ctr/3"}) {
      Write("ctr/3/model.hilomoe");
      const auto listing = ListRepository(root(), [&](const std::string& directory) {
        if (directory != root() + at) return;
        fs::rename(root(), root() + ".away");
        if (replaced) fs::create_directory(root());
      });
      // The root itself: replaced before it is looked at, it is another one, and empty.
      EXPECT_EQ(listing.ok(), replaced && *at == '\0') << replaced << at << listing.status();
      fs::remove_all(root());
      fs::rename(root() + ".away", root());
    }
  }
}

// What it leads to may lie on a mount that is away.
TEST_F(RepositoryListingTest, ALinkToNothingIsNotDeleted) {
  Write("ctr/3/model.hilomoe");
  fs::create_symlink("away/policy", root() + "/ctr/policy.textproto");
  fs::create_directory_symlink("away/4", root() + "/ctr/4");
  fs::create_directories(root() + "/ctr/5");
  fs::create_symlink("away/file", root() + "/ctr/5/model.hilomoe");
  fs::create_directory_symlink("away/model", root() + "/linked");
  const auto listing = ListRepository(root());
  ASSERT_TRUE(listing.ok()) << listing.status();
  EXPECT_THAT(listing->models.at("linked").status.message(), HasSubstr(root() + "/linked' is a link to nothing"));
  const ListedModel& model = listing->models.at("ctr");
  EXPECT_TRUE(model.status.ok());
  EXPECT_THAT(model.policy->text.status().message(), HasSubstr("policy.textproto' is a link to nothing"));
  ASSERT_THAT(model.versions, ElementsAre(Key(3), Key(4), Key(5)));
  EXPECT_TRUE(model.versions.at(3).status.ok());
  EXPECT_THAT(model.versions.at(4).status.message(), HasSubstr("ctr/4' is a link to nothing"));
  EXPECT_THAT(model.versions.at(5).status.message(), HasSubstr("model.hilomoe' is a link to nothing"));
  EXPECT_THAT(listing->skipped, SizeIs(0));
}

}  // namespace
}  // namespace hilomoe
