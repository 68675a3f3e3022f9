#include "tools/client/synthetic_requests.h"

#include <map>
#include <numeric>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/test_model.h"

namespace hilomoe {
namespace {

using ::testing::HasSubstr;

CandidateMix Mix(const char* text) { return *ParseCandidateMix(text); }

TEST(CandidateMixTest, Reads) {
  EXPECT_EQ(Mix("100").sizes, (std::vector<std::pair<uint32_t, double>>{{100, 1}}));
  EXPECT_EQ(Mix("10:1,100:2,1000:1").sizes,
            (std::vector<std::pair<uint32_t, double>>{{10, 0.25}, {100, 0.5}, {1000, 0.25}}));
  for (const char* bad : {"", "many", "10:", "10:0", "10:-1", "10:nan", "10:1:1", "10,", "-1", "10:1 100:2"}) {
    const auto mix = ParseCandidateMix(bad);
    ASSERT_FALSE(mix.ok()) << bad;
    EXPECT_THAT(std::string(mix.status().message()), HasSubstr("is not a number of candidates")) << bad;
  }
}

class SyntheticRequestsTest : public ::testing::Test {
 protected:
  SyntheticRequestsTest() : path_(WriteTestModel(directory_.path())), file_(*ModelFile::Open(path_)) {}
  TemporaryDirectory directory_;
  std::string path_;
  ModelFile file_;
};

// As the predictor takes them: every feature of every kind, as many values as rows say.
TEST_F(SyntheticRequestsTest, TheModelTakesThem) {
  const auto requests =
      SyntheticRequests(file_.spec(), KnownIdsOf(file_), {.count = 20, .candidates = Mix("1:1,70:1"), .seed = 3});
  ASSERT_EQ(requests.size(), 20u);
  std::map<uint32_t, int> sizes;
  for (const v1::ScoreRequest& request : requests) {
    ++sizes[request.num_candidates()];
    EXPECT_EQ(request.context_size() + request.candidates_size(), static_cast<int>(file_.spec().features().size()));
    EXPECT_EQ(DirectScores(path_, request).size(), request.num_candidates());
  }
  EXPECT_EQ(sizes, (std::map<uint32_t, int>{{1, 10}, {70, 10}}));
}

TEST_F(SyntheticRequestsTest, IdsAreThoseOfTheFile) {
  const KnownIds known = KnownIdsOf(file_);
  size_t features_with_ids = 0;
  for (size_t f = 0; f < known.size(); ++f) {
    if (known[f].empty()) continue;
    ++features_with_ids;
    const Vocabulary& vocabulary = file_.vocabularies()[static_cast<size_t>(file_.spec().features()[f].table)];
    for (size_t i = 0; i < known[f].size(); ++i) EXPECT_EQ(vocabulary.Find(known[f][i]), i + 2);
  }
  EXPECT_GT(features_with_ids, 0u);
  for (const v1::ScoreRequest& request :
       SyntheticRequests(file_.spec(), known, {.count = 5, .candidates = Mix("50"), .seed = 1})) {
    for (const v1::Column& column : request.candidates()) {
      for (size_t f = 0; f < known.size(); ++f) {
        if (file_.spec().features()[f].id != column.feature_id() || known[f].empty()) continue;
        for (const int64_t id : column.ids()) EXPECT_THAT(known[f], ::testing::Contains(id));
      }
    }
  }
}

TEST_F(SyntheticRequestsTest, SeedsAndZipf) {
  const auto make = [&](uint64_t seed, double exponent) {
    return SyntheticRequests(
        file_.spec(), {},
        {.count = 3, .candidates = Mix("2000"), .zipf_exponent = exponent, .ids = 1000, .seed = seed});
  };
  const auto a = make(1, 1.05), b = make(1, 1.05), c = make(2, 1.05);
  EXPECT_EQ(a[0].SerializeAsString(), b[0].SerializeAsString());
  EXPECT_NE(a[0].SerializeAsString(), c[0].SerializeAsString());
  EXPECT_NE(a[0].SerializeAsString(), a[1].SerializeAsString());
  // Of 1000 ids the first has 17 % of the draws at exponent 1.05 (1 / sum of i^-1.05), and 0.1 % at 0.
  const auto share_of_first = [](const v1::ScoreRequest& request) {
    double all = 0, first = 0;
    for (const v1::Column& column : request.candidates()) {
      for (const int64_t id : column.ids()) {
        ++all;
        first += id == 1;
      }
    }
    return first / all;
  };
  EXPECT_NEAR(share_of_first(a[0]), 0.156, 0.05);
  EXPECT_NEAR(share_of_first(make(1, 0)[0]), 0.001, 0.005);
}

}  // namespace
}  // namespace hilomoe
