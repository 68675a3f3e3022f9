// Features that a request does not have: required ones, defaults, and contexts repeated for every candidate.
#include <cmath>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/request_encoder.h"
#include "tests/runtime/request_columns.h"

namespace hilomoe {
namespace {

using testing::ElementsAre;

TEST(AbsentFeaturesTest, RequiredFeaturesMustStandInTheRequest) {
  const EncoderFixture f(R"(
    features { id: 1 name: "u" kind: CATEGORICAL scope: CONTEXT id_type: INT64 embedding_width: 1 required: true }
    features { id: 2 name: "i" kind: BAG scope: CANDIDATE id_type: INT64 embedding_width: 1 required: true })");
  EncodedBatch batch;
  const auto encode = [&](size_t n, const Columns& context, const Columns& candidates) {
    return f.encoder().Encode({n, context.views(), candidates.views()}, &batch, nullptr);
  };
  ExpectBad(encode(1, {}, {Ids("i", {1})}), "feature 'u': is required and absent");
  ExpectBad(encode(1, {Ids("u", {1})}, {}), "feature 'i': is required and absent");
  EXPECT_TRUE(encode(1, {Ids("u", {}, {0})}, {Ids("i", {}, {0})}).ok());  // there, though without a value
  EXPECT_TRUE(encode(0, {Ids("u", {1})}, {}).ok());
}

TEST(AbsentFeaturesTest, AbsentFeaturesTakeTheirDefault) {
  const EncoderFixture f(R"(
    features { id: 1 name: "u" kind: CATEGORICAL scope: CONTEXT id_type: INT64 embedding_width: 1 default_value: "20" }
    features { id: 2 name: "t" kind: CATEGORICAL scope: CANDIDATE id_type: STRING embedding_width: 1
               default_value: "a^b" }
    features { id: 3 name: "s" kind: SEQUENCE scope: CONTEXT id_type: INT64 embedding_width: 1 max_length: 2
               default_value: "10^^20^30" }
    features { id: 4 name: "b" kind: BAG scope: CANDIDATE id_type: STRING embedding_width: 1 max_length: 2
               default_value: "c^?^a" }
    features { id: 5 name: "x" kind: NUMERIC scope: CANDIDATE default_value: "-3"
               numeric { transform: LOG1P missing_indicator: true } }
    features { id: 6 name: "q" kind: NUMERIC scope: CONTEXT embedding_width: 1 default_value: "0.5"
               numeric { transform: QUANTILE buckets: 4 } }
    features { id: 7 name: "e" kind: CATEGORICAL scope: CONTEXT id_type: STRING embedding_width: 1 default_value: "" })");
  EncodedBatch batch;
  EncodeCounts counts;
  ASSERT_TRUE(f.encoder().Encode({2, {}, {}}, &batch, &counts).ok());
  EXPECT_THAT(batch.features[0].rows, ElementsAre(3));
  EXPECT_THAT(batch.features[1].rows, ElementsAre(kOutOfVocabularyRow, kOutOfVocabularyRow));  // one id, "a^b"
  EXPECT_THAT(batch.features[2].rows, ElementsAre(3, 4));  // as a log's cell: three ids, the last two kept
  EXPECT_THAT(batch.features[3].rows, ElementsAre(4, kOutOfVocabularyRow, 4, kOutOfVocabularyRow));
  EXPECT_THAT(batch.features[3].offsets, ElementsAre(0, 2, 4));
  EXPECT_THAT(batch.features[4].values, ElementsAre(-std::log(4.0F), -std::log(4.0F)));
  EXPECT_THAT(batch.features[4].missing, ElementsAre(0, 0));
  EXPECT_THAT(batch.features[5].rows, ElementsAre(4));
  EXPECT_THAT(batch.features[6].rows, ElementsAre(kMissingRow));
  EXPECT_THAT(counts.missing, ElementsAre(1, 2, 1, 2, 2, 1, 1));
  // A row without a value is not absent: no default.
  const Columns empty({Ids("u", {}, {0})});
  ASSERT_TRUE(f.encoder().Encode({1, empty.views(), {}}, &batch, nullptr).ok());
  EXPECT_THAT(batch.features[0].rows, ElementsAre(kMissingRow));
}

// A default beyond the transform's range is refused where it is used: there is no number to evaluate.
TEST(AbsentFeaturesTest, ADefaultThatOverflowsIsRefused) {
  const EncoderFixture f(R"(features { id: 1 name: "x" kind: NUMERIC scope: CANDIDATE default_value: "3e38"
                            numeric { transform: STANDARDISE } })");
  EncodedBatch batch;
  ExpectBad(f.encoder().Encode({2, {}, {}}, &batch, nullptr), "feature 'x': is absent, and its default_value is out");
  const Columns given({Numbers("x", {1, 2})});
  EXPECT_TRUE(f.encoder().Encode({2, {}, given.views()}, &batch, nullptr).ok());
}

// A long context repeated for many candidates would be 2^32 ids: refused, not wrapped to a few.
TEST(AbsentFeaturesTest, ARepeatedContextIsBounded) {
  const EncoderFixture f(R"(
    features { id: 1 name: "s" kind: SEQUENCE scope: CONTEXT id_type: INT64 embedding_width: 1 max_length: 65536 }
    features { id: 2 name: "x" kind: NUMERIC scope: CONTEXT })");
  EncodedBatch batch;
  const Columns context({Ids("s", std::vector<int64_t>(65536, 10), {65536})});
  const Columns candidates({Numbers("x", std::vector<float>(65536, 1))});
  ExpectBad(f.encoder().Encode({65536, context.views(), candidates.views()}, &batch, nullptr),
            "feature 's': 65536 ids");
  const Columns few({Numbers("x", std::vector<float>(100, 1))});
  ASSERT_TRUE(f.encoder().Encode({100, context.views(), few.views()}, &batch, nullptr).ok());
  EXPECT_EQ(batch.features[0].rows.size(), 6'553'600);
}

}  // namespace
}  // namespace hilomoe
