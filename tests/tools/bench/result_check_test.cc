// The checks of the benchmarks see what is wrong.
#include "tools/bench/result_check.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace hilomoe::bench {
namespace {

TEST(CheckNumbersTest, HoldsNumbersToTheirBounds) {
  const std::vector<Rounded> expected = {Rounded(1, 1e-12), Rounded(-2, 0)};  // bounds 1e-5 and 0
  EXPECT_TRUE(CheckNumbers("y", {1.000009F, -2.0F}, expected).ok());
  for (const float wrong : {1.00002F, 0.99998F, NAN, INFINITY}) {
    EXPECT_FALSE(CheckNumbers("y", {wrong, -2.0F}, expected).ok()) << wrong;
  }
  EXPECT_FALSE(CheckNumbers("y", {1.0F, -2.000001F}, expected).ok());
  EXPECT_FALSE(CheckNumbers("y", {1.0F}, expected).ok());
}

// A model, its predictor and its requests, small.
struct CheckedModel {
  int top_k;
  Precision precision;
  float wrong;  // an error that shows
};

class CheckScoresTest : public testing::TestWithParam<CheckedModel> {
 protected:
  CheckScoresTest() {
    absl::StatusOr<std::unique_ptr<BenchModel>> made = BenchModel::Create(
        {.ids = 50, .layers = 2, .experts = 8, .top_k = GetParam().top_k, .precision = GetParam().precision});
    EXPECT_TRUE(made.ok()) << made.status();
    model_ = *std::move(made);
  }
  std::vector<float> Predict(const BenchRequest& request) {
    const Predictor* const predictor = *model_->Open();
    Workspace workspace(*predictor);
    std::vector<float> scores(request.options().candidates);
    EXPECT_TRUE(predictor->Predict(request.view(), &workspace, absl::MakeSpan(scores)).ok());
    EXPECT_TRUE(CheckEncoded(request, workspace.batch).ok());
    return scores;
  }

  std::unique_ptr<BenchModel> model_;
};

TEST_P(CheckScoresTest, RightScoresPassAndAWrongOneDoesNot) {
  for (const bool flat : {false, true}) {
    const BenchRequest request(*model_, {.candidates = 4, .flat = flat}, 1);
    std::vector<float> scores = Predict(request);
    const absl::Status status = CheckScores(model_.get(), request, scores, 0);
    EXPECT_TRUE(status.ok()) << status;
    for (float& score : scores) {
      const float right = score;
      for (const float wrong : {right + GetParam().wrong, right - GetParam().wrong, NAN, 1.5F}) {
        score = wrong;
        EXPECT_FALSE(CheckScores(model_.get(), request, scores, 0).ok()) << right << " as " << wrong;
      }
      score = right;
    }
  }
}

TEST_P(CheckScoresTest, FlatRowsAndAShorterRequestHoldTheSameCandidates) {
  const BenchRequest longer(*model_, {.candidates = 9, .flat = true}, 3);
  const BenchRequest shorter(*model_, {.candidates = 5, .flat = false}, 3);
  const std::vector<float> a = Predict(longer), b = Predict(shorter);
  for (size_t r = 0; r < b.size(); ++r) EXPECT_EQ(a[r], b[r]) << r;
}

TEST_P(CheckScoresTest, SeesABitThatDependsOnTheBatch) {
  for (const bool flat : {false, true}) {
    const BenchRequest request(*model_, {.candidates = 130, .flat = flat}, 2);
    std::vector<float> scores = Predict(request);
    const absl::Status status = CheckSplits(*model_, **model_->Open(), request, scores);
    EXPECT_TRUE(status.ok()) << status;
    scores[77] = std::nextafter(scores[77], 1.0F);
    EXPECT_FALSE(CheckSplits(*model_, **model_->Open(), request, scores).ok());
  }
}

TEST_P(CheckScoresTest, SeesAWrongRow) {
  const BenchRequest request(*model_, {.candidates = 3}, 1);
  EncodedBatch encoded = request.expected();
  EXPECT_TRUE(CheckEncoded(request, encoded).ok());
  ++encoded.features.back().rows[2];
  EXPECT_FALSE(CheckEncoded(request, encoded).ok());
}

INSTANTIATE_TEST_SUITE_P(Models, CheckScoresTest,
                         testing::Values(CheckedModel{0, Precision::kFloat32, 1e-4F},
                                         CheckedModel{2, Precision::kFloat32, 1e-4F},
                                         CheckedModel{0, Precision::kBfloat16, 0.05F},
                                         CheckedModel{0, Precision::kInt8, 0.2F}),
                         [](const testing::TestParamInfo<CheckedModel>& info) {
                           return absl::StrCat(PrecisionName(info.param.precision), "_top_k_", info.param.top_k);
                         });

}  // namespace
}  // namespace hilomoe::bench
