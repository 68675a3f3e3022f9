#include "server/model_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/validate_config.h"

namespace hilomoe {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

v1::ModelPolicy Policy(const std::string& text) {
  const auto policy = ParseModelPolicy(text, "policy");
  EXPECT_TRUE(policy.ok()) << policy.status();
  return policy.ok() ? *policy : v1::ModelPolicy();
}

std::string ErrorOf(const std::string& text) { return std::string(ParseModelPolicy(text, "p").status().message()); }

TEST(ModelPolicyTest, WrongOnesNameLineAndField) {
  EXPECT_EQ(Policy("latest_versions: 3").latest_versions(), 3);
  EXPECT_EQ(Policy("labels { name: 'stable' version: 3 }").labels(0).version(), 3);
  EXPECT_THAT(ErrorOf("\nlatest: 3"), AllOf(HasSubstr("p:2:"), HasSubstr("latest")));
  EXPECT_THAT(ErrorOf("\nlatest_versions: 0"), AllOf(HasSubstr("p:2:"), HasSubstr("latest_versions: must be from 1")));
  EXPECT_THAT(ErrorOf("versions: 0"), HasSubstr("versions[0]: must be at least 1"));
  EXPECT_THAT(ErrorOf("versions: 3\nversions: 3"),
              AllOf(HasSubstr("p:2:"), HasSubstr("versions[1]: 3 stands there twice")));
  EXPECT_THAT(ErrorOf("versions: 3 latest_versions: 1"), HasSubstr("latest_versions: cannot be given beside versions"));
  EXPECT_THAT(ErrorOf("labels { name: 'a b' version: 3 }"), HasSubstr("labels[0].name: 'a b'"));
  EXPECT_THAT(ErrorOf("labels { version: 3 }"), HasSubstr("labels[0].name"));
  EXPECT_THAT(ErrorOf("labels { name: 'a' }"), HasSubstr("labels[0].version: is not set"));
  EXPECT_THAT(ErrorOf("labels { name: 'a' version: 1 }\nlabels { name: 'a' version: 2 }"),
              AllOf(HasSubstr("p:2:"), HasSubstr("labels[1].name: 'a' stands there twice")));
  EXPECT_THAT(ErrorOf("versions: 3 labels { name: 'a' version: 4 }"), HasSubstr("labels[0].version: 4 is not among"));
  EXPECT_THAT(ErrorOf("name: 'ctr' versions: 3"), HasSubstr("name: "));
  EXPECT_THAT(ErrorOf(""), HasSubstr("sets nothing"));  // a file that is being written
}

TEST(ModelPolicyTest, ConfigsAreChecked) {
  const auto error = [](const std::function<void(v1::ServerConfig*)>& change) {
    v1::ServerConfig config;
    v1::ModelPolicy* policy = config.add_models();
    policy->set_name("ctr");
    policy->add_versions(3);
    change(&config);
    return std::string(ValidateServerConfig(config).message());
  };
  EXPECT_THAT(error([](auto*) {}), IsEmpty());
  EXPECT_THAT(error([](auto* c) { c->mutable_models(0)->set_latest_versions(1); }),
              HasSubstr("models[0].latest_versions: cannot"));
  EXPECT_THAT(error([](auto* c) { c->mutable_models(0)->set_versions(0, 0); }), HasSubstr("models[0].versions[0]: "));
  EXPECT_THAT(error([](auto* c) { c->mutable_models(0)->clear_name(); }), HasSubstr("models[0].name: "));
  EXPECT_THAT(error([](auto* c) { c->add_models()->set_name("ctr"); }), HasSubstr("models[1].name: 'ctr' stands"));
  EXPECT_THAT(error([](auto* c) { c->set_load_retry_min_ms(300'001); }), HasSubstr("load_retry_max_ms: "));
  EXPECT_THAT(error([](auto* c) { c->set_poll_interval_ms(0); }), HasSubstr("poll_interval_ms: must be from"));
  EXPECT_THAT(error([](auto* c) { c->set_latest_versions(0); }), HasSubstr("latest_versions: must be from"));
}

TEST(ModelPolicyTest, VersionsAreChosen) {
  const auto choose = [](const std::string& policy, const std::set<uint64_t>& failed) {
    return ChooseVersions(Policy(policy), {2, 3, 5, 7}, [failed](uint64_t v) { return failed.count(v) > 0; });
  };
  EXPECT_THAT(choose("latest_versions: 1", {}).serve, ElementsAre(7));
  EXPECT_THAT(choose("latest_versions: 2", {}).serve, ElementsAre(5, 7));
  EXPECT_THAT(choose("latest_versions: 9", {}).serve, ElementsAre(2, 3, 5, 7));
  // What has failed is passed over, and tried again.
  EXPECT_THAT(choose("latest_versions: 1", {7}).serve, ElementsAre(5));
  EXPECT_THAT(choose("latest_versions: 1", {7}).attempt, ElementsAre(5, 7));
  EXPECT_THAT(choose("latest_versions: 2", {3, 5}).serve, ElementsAre(2, 7));
  EXPECT_THAT(choose("latest_versions: 2", {3, 5}).attempt, ElementsAre(2, 3, 5, 7));
  EXPECT_THAT(choose("latest_versions: 1", {2}).attempt, ElementsAre(7));  // too old to be missed
  EXPECT_THAT(choose("latest_versions: 2", {2, 3, 5, 7}).serve, ElementsAre(5, 7));
  EXPECT_THAT(choose("versions: 3 versions: 4", {3}).serve, ElementsAre(3, 4));
  EXPECT_THAT(choose("labels { name: 'a' version: 2 }", {}).serve, ElementsAre(2, 7));
  EXPECT_THAT(choose("labels { name: 'a' version: 2 }", {7}).attempt, ElementsAre(2, 5, 7));
}

}  // namespace
}  // namespace hilomoe
