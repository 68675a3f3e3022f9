// Feature values -> rows and numbers, as model_config.proto describes the features.
#include "runtime/request_encoder.h"

#include <cmath>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/model/random_model.h"
#include "tests/runtime/request_columns.h"

namespace hilomoe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr char kFeatures[] = R"(
  features { id: 1 name: "user" kind: CATEGORICAL scope: CONTEXT id_type: STRING embedding_width: 1 }
  features { id: 2 name: "item" kind: CATEGORICAL scope: CANDIDATE id_type: INT64 embedding_width: 1 }
  features { id: 3 name: "seen" kind: SEQUENCE scope: CONTEXT id_type: INT64 share_embedding: "item" max_length: 3 }
  features { id: 4 name: "tags" kind: BAG scope: CANDIDATE id_type: STRING embedding_width: 1 max_length: 2 }
  features { id: 5 name: "price" kind: NUMERIC scope: CANDIDATE numeric { missing_indicator: true } }
  features { id: 6 name: "log" kind: NUMERIC scope: CONTEXT numeric { transform: LOG1P } }
  features { id: 7 name: "z" kind: NUMERIC scope: CANDIDATE
             numeric { transform: STANDARDISE missing_indicator: true } }
  features { id: 8 name: "age" kind: NUMERIC scope: CONTEXT embedding_width: 1
             numeric { transform: QUANTILE buckets: 4 } }
  features { id: 9 name: "hash" kind: CATEGORICAL scope: CANDIDATE id_type: STRING embedding_width: 1
             vocabulary { hash_buckets: 5 } }
)";
enum { kUser, kItem, kSeen, kTags, kPrice, kLog, kZ, kAge, kHash };

void InReverse(size_t tasks, absl::FunctionRef<void(size_t)> work) {
  while (tasks-- > 0) work(tasks);
}

void OnAThreadEach(size_t tasks, absl::FunctionRef<void(size_t)> work) {
  std::vector<std::jthread> threads;
  for (size_t task = 0; task < tasks; ++task) threads.emplace_back(work, task);
}

void ExpectEqual(const EncodedBatch& a, const EncodedBatch& b) {
  EXPECT_EQ(a.context_rows, b.context_rows);
  EXPECT_EQ(a.candidate_rows, b.candidate_rows);
  ASSERT_EQ(a.features.size(), b.features.size());
  for (size_t f = 0; f < a.features.size(); ++f) {
    EXPECT_EQ(a.features[f].rows, b.features[f].rows) << f;
    EXPECT_EQ(a.features[f].offsets, b.features[f].offsets) << f;
    EXPECT_EQ(a.features[f].values, b.features[f].values) << f;
    EXPECT_EQ(a.features[f].missing, b.features[f].missing) << f;
  }
}

class RequestEncoderTest : public testing::Test {
 protected:
  // Whoever encodes which feature, and when, the outcome is the same.
  absl::Status Encode(size_t candidates, const Columns& context, const Columns& columns) {
    const RequestView request{candidates, context.views(), columns.views()};
    counts_ = {};
    const absl::Status status = columns_.encoder().Encode(request, &batch_, &counts_);
    for (const auto run : {&InReverse, &OnAThreadEach}) {
      EncodeCounts counts;
      EncodedBatch at_context;  // when the context was said to be encoded
      int context_encoded = 0;
      const auto keep = [&] {
        ++context_encoded;
        CopyContext(other_batch_, &at_context);
      };
      EXPECT_EQ(columns_.encoder().Encode(request, &other_batch_, &counts, &feature_columns_, *run, keep), status);
      EXPECT_LE(context_encoded, other_batch_.context_rows == 1 ? 1 : 0);
      if (!status.ok()) continue;
      EXPECT_EQ(context_encoded, batch_.context_rows == 1 ? 1 : 0);
      if (context_encoded > 0) {
        EncodedBatch context;
        CopyContext(batch_, &context);
        ExpectEqual(context, at_context);
      }
      ExpectEqual(batch_, other_batch_);
      EXPECT_EQ(counts.values, counts_.values);
      EXPECT_EQ(counts.out_of_vocabulary, counts_.out_of_vocabulary);
      EXPECT_EQ(counts.missing, counts_.missing);
      EXPECT_EQ(counts.unknown_features, counts_.unknown_features);
    }
    return status;
  }
  void CopyContext(const EncodedBatch& batch, EncodedBatch* out) const {
    out->features.clear();
    for (size_t f = 0; f < batch.features.size(); ++f) {
      if (columns_.spec().features()[f].is_context()) out->features.push_back(batch.features[f]);
    }
  }
  // Encodes one column of two candidates.
  absl::Status EncodeTwo(const Column& column) { return Encode(2, {}, {column}); }
  const EncodedFeature& feature(int f) const { return batch_.features[f]; }

  // user and tags know a, b, c; item knows 10, 20, 30: rows 2, 3, 4.
  EncoderFixture columns_{kFeatures};
  EncodedBatch batch_, other_batch_;
  EncodeCounts counts_;
  std::vector<RequestEncoder::FeatureColumn> feature_columns_;
};

// Sequences side by side: no position is dropped, and a row without one of them is missing everywhere in it.
TEST(AlignedSequencesTest, KeepTheirPositions) {
  EncoderFixture fixture(R"(
    features { id: 1 name: "item" kind: CATEGORICAL scope: CANDIDATE id_type: INT64 embedding_width: 1 }
    features { id: 2 name: "seen" kind: SEQUENCE scope: CONTEXT id_type: INT64 share_embedding: "item" max_length: 2
               pooling: NONE }
    features { id: 3 name: "kind" kind: SEQUENCE scope: CONTEXT id_type: STRING embedding_width: 1 max_length: 2
               pooling: NONE }
    network { attention { query: "item" history: "seen" history: "kind" } })");
  EncodedBatch batch;
  const auto encode = [&](size_t rows, const Columns& columns) {
    return fixture.encoder().Encode({rows, {}, columns.views()}, &batch, nullptr);
  };
  const Column items = Ids("item", {10, 10, 10});
  ASSERT_TRUE(
      encode(3, {items, Ids("seen", {10, 20, 30, 20}, {3, 0, 1}), Strings("kind", {"a", "", "b"}, {3, 0, 0})}).ok());
  EXPECT_THAT(batch.features[1].rows, ElementsAre(3, 4, 3));
  EXPECT_THAT(batch.features[1].offsets, ElementsAre(0, 2, 2, 3));
  EXPECT_THAT(batch.features[2].rows, ElementsAre(kMissingRow, 3, kMissingRow));
  EXPECT_THAT(batch.features[2].offsets, ElementsAre(0, 2, 2, 3));
  // Either may be the one that is missing.
  ASSERT_TRUE(encode(5, {Ids("item", {10, 10, 10, 10, 10}), Ids("seen", {10, 20, 30}, {2, 0, 1, 0, 0}),
                         Strings("kind", {"a", "b", "c", "a"}, {0, 1, 1, 0, 2})})
                  .ok());
  EXPECT_THAT(batch.features[1].rows, ElementsAre(2, 3, kMissingRow, 4, kMissingRow, kMissingRow));
  EXPECT_THAT(batch.features[1].offsets, ElementsAre(0, 2, 3, 4, 4, 6));
  EXPECT_THAT(batch.features[2].rows, ElementsAre(kMissingRow, kMissingRow, 2, 3, 4, 2));
  EXPECT_THAT(batch.features[2].offsets, ElementsAre(0, 2, 3, 4, 4, 6));
  // An old client that knows nothing of the second one.
  ASSERT_TRUE(encode(1, {Ids("item", {10}), Ids("seen", {10, 20}, {2})}).ok());
  EXPECT_THAT(batch.features[2].rows, ElementsAre(kMissingRow, kMissingRow));
  const absl::Status status = encode(1, {Ids("item", {10}), Ids("seen", {10, 20}, {2}), Strings("kind", {"a"}, {1})});
  EXPECT_THAT(std::string(status.message()), HasSubstr("'kind': row 0 has 1 values; 'seen' beside it has 2"));
}

TEST_F(RequestEncoderTest, CategoricalValues) {
  ASSERT_TRUE(Encode(4, {}, {Ids("item", {30, 10, 11, 20})}).ok());
  EXPECT_THAT(feature(kItem).rows, ElementsAre(4, 2, kOutOfVocabularyRow, 3));
  EXPECT_EQ(counts_.values[kItem], 4);
  EXPECT_EQ(counts_.out_of_vocabulary[kItem], 1);
  EXPECT_EQ(counts_.missing[kItem], 0);
  EXPECT_EQ(batch_.candidate_rows, 4);
  EXPECT_EQ(batch_.context_rows, 1);
}

TEST_F(RequestEncoderTest, RowsWithoutAValueAreMissing) {
  ASSERT_TRUE(Encode(3, {}, {Ids("item", {20}, {0, 1, 0})}).ok());
  EXPECT_THAT(feature(kItem).rows, ElementsAre(kMissingRow, 3, kMissingRow));
  EXPECT_EQ(counts_.values[kItem], 1);
  EXPECT_EQ(counts_.missing[kItem], 2);
}

TEST_F(RequestEncoderTest, TheEmptyStringIsNoId) {
  ASSERT_TRUE(Encode(1, {Strings("user", {""})}, {}).ok());
  EXPECT_THAT(feature(kUser).rows, ElementsAre(kMissingRow));
  EXPECT_EQ(counts_.missing[kUser], 1);
  EXPECT_EQ(counts_.values[kUser], 0);
  ASSERT_TRUE(EncodeTwo(Strings("tags", {"", "a", ""}, {2, 1})).ok());
  EXPECT_THAT(feature(kTags).rows, ElementsAre(2));
  EXPECT_THAT(feature(kTags).offsets, ElementsAre(0, 1, 1));
}

TEST_F(RequestEncoderTest, StringsMayHoldAnyBytes) {
  ASSERT_TRUE(Encode(1, {Strings("user", {std::string("a\0", 2)})}, {}).ok());
  EXPECT_THAT(feature(kUser).rows, ElementsAre(kOutOfVocabularyRow));
  ASSERT_TRUE(Encode(1, {Strings("user", {"b"})}, {}).ok());
  EXPECT_THAT(feature(kUser).rows, ElementsAre(3));
}

TEST_F(RequestEncoderTest, ABagKeepsItsFirstASequenceItsLast) {
  ASSERT_TRUE(
      Encode(2, {Ids("seen", {10, 20, 30, 10, 77}, {5})}, {Strings("tags", {"c", "b", "a", "c"}, {3, 1})}).ok());
  EXPECT_THAT(feature(kTags).rows, ElementsAre(4, 3, 4));
  EXPECT_THAT(feature(kTags).offsets, ElementsAre(0, 2, 3));
  EXPECT_THAT(feature(kSeen).rows, ElementsAre(4, 2, kOutOfVocabularyRow));
  EXPECT_THAT(feature(kSeen).offsets, ElementsAre(0, 3));
  EXPECT_EQ(counts_.values[kSeen], 3);
  EXPECT_EQ(counts_.out_of_vocabulary[kSeen], 1);
}

TEST_F(RequestEncoderTest, UnknownIdsCountInTheMeanAndEmptyOnesAreAllowed) {
  ASSERT_TRUE(EncodeTwo(Strings("tags", {"?", "a"}, {2, 0})).ok());
  EXPECT_THAT(feature(kTags).rows, ElementsAre(kOutOfVocabularyRow, 2));
  EXPECT_THAT(feature(kTags).offsets, ElementsAre(0, 2, 2));
  EXPECT_EQ(counts_.missing[kTags], 1);
  EXPECT_EQ(counts_.out_of_vocabulary[kTags], 1);
}

TEST_F(RequestEncoderTest, PooledFeaturesMayHaveOneValueARow) {
  ASSERT_TRUE(EncodeTwo(Strings("tags", {"b", "c"})).ok());
  EXPECT_THAT(feature(kTags).offsets, ElementsAre(0, 1, 2));
  ExpectBad(Encode(1, {Ids("seen", {})}, {}), "feature 'seen': 0 values for 1 rows, and no row_lengths");
}

TEST_F(RequestEncoderTest, HashedFeaturesKnowEveryId) {
  ASSERT_TRUE(EncodeTwo(Strings("hash", {"anything", ""})).ok());
  EXPECT_EQ(feature(kHash).rows[0], Vocabulary::Hashed(5).Find("anything"));
  EXPECT_GE(feature(kHash).rows[0], kReservedRows);
  EXPECT_EQ(feature(kHash).rows[1], kMissingRow);
  EXPECT_EQ(counts_.out_of_vocabulary[kHash], 0);
}

TEST_F(RequestEncoderTest, NumbersAndTheirIndicator) {
  ASSERT_TRUE(Encode(3, {}, {Numbers("price", {1.5F, -2}, {1, 0, 1})}).ok());
  EXPECT_THAT(feature(kPrice).values, ElementsAre(1.5F, 0, -2));
  EXPECT_THAT(feature(kPrice).missing, ElementsAre(0, 1, 0));
  EXPECT_EQ(counts_.values[kPrice], 2);
  EXPECT_EQ(counts_.missing[kPrice], 1);
}

// Missing is 0 after the transform, not before it.
TEST_F(RequestEncoderTest, StandardisedNumbers) {
  ASSERT_TRUE(Encode(3, {}, {Numbers("z", {4, 3}, {1, 0, 1})}).ok());
  EXPECT_THAT(feature(kZ).values, ElementsAre((4 - 3) * 2, 0, 0));  // mean 3, 1 / deviation 2
  EXPECT_THAT(feature(kZ).missing, ElementsAre(0, 1, 0));
}

TEST_F(RequestEncoderTest, LogarithmsKeepTheSign) {
  const auto log = [&](float x) {
    EXPECT_TRUE(Encode(1, {Numbers("log", {x})}, {}).ok()) << x;
    return feature(kLog).values[0];
  };
  EXPECT_EQ(log(0), 0);
  EXPECT_FLOAT_EQ(log(3), std::log(4.0F));
  EXPECT_FLOAT_EQ(log(-3), -std::log(4.0F));
  EXPECT_FLOAT_EQ(log(1e-20F), 1e-20F);
  EXPECT_FLOAT_EQ(log(-3e38F), static_cast<float>(-std::log(3e38)));
}

// Boundaries -1, 0, 2.5: bucket i holds boundaries[i - 1] <= x < boundaries[i], rows 2 to 5.
TEST_F(RequestEncoderTest, QuantileBuckets) {
  const auto bucket = [&](float x) {
    EXPECT_TRUE(Encode(1, {Numbers("age", {x})}, {}).ok()) << x;
    return feature(kAge).rows[0];
  };
  constexpr float kLowest = std::numeric_limits<float>::lowest();
  EXPECT_EQ(bucket(kLowest), 2);
  EXPECT_EQ(bucket(std::nextafter(-1.0F, kLowest)), 2);
  EXPECT_EQ(bucket(-1), 3);
  EXPECT_EQ(bucket(-0.0F), 4);
  EXPECT_EQ(bucket(0), 4);
  EXPECT_EQ(bucket(std::nextafter(2.5F, 0.0F)), 4);
  EXPECT_EQ(bucket(2.5F), 5);
  EXPECT_EQ(bucket(std::numeric_limits<float>::max()), 5);
  ASSERT_TRUE(Encode(1, {Numbers("age", {}, {0})}, {}).ok());
  EXPECT_THAT(feature(kAge).rows, ElementsAre(kMissingRow));
  EXPECT_THAT(feature(kAge).values, IsEmpty());
}

TEST_F(RequestEncoderTest, RefusesNumbersThatAreNotFinite) {
  for (const float x : {NAN, -NAN, INFINITY, -INFINITY}) {
    ExpectBad(EncodeTwo(Numbers("price", {0, x})), "feature 'price': row 1: the number is not finite");
    ExpectBad(Encode(1, {Numbers("age", {x})}, {}), "feature 'age': row 0: the number is not finite");
  }
  // (3e38 - 3) * 2 overflows.
  ExpectBad(EncodeTwo(Numbers("z", {3e38F, 0})), "feature 'z': row 0: 3e+38 is out of range");
}

TEST_F(RequestEncoderTest, AbsentFeaturesAreMissing) {
  ASSERT_TRUE(Encode(2, {}, {}).ok());
  EXPECT_THAT(feature(kUser).rows, ElementsAre(kMissingRow));
  EXPECT_THAT(feature(kItem).rows, ElementsAre(kMissingRow, kMissingRow));
  EXPECT_THAT(feature(kSeen).offsets, ElementsAre(0, 0));
  EXPECT_THAT(feature(kTags).offsets, ElementsAre(0, 0, 0));
  EXPECT_THAT(feature(kPrice).values, ElementsAre(0, 0));
  EXPECT_THAT(feature(kPrice).missing, ElementsAre(1, 1));
  EXPECT_THAT(feature(kLog).values, ElementsAre(0));
  EXPECT_THAT(feature(kLog).missing, IsEmpty());
  EXPECT_THAT(feature(kZ).values, ElementsAre(0, 0));
  EXPECT_THAT(feature(kAge).rows, ElementsAre(kMissingRow));
  EXPECT_THAT(counts_.missing, ElementsAre(1, 2, 1, 2, 2, 1, 2, 1, 2));
  EXPECT_THAT(counts_.values, testing::Each(0));
}

TEST_F(RequestEncoderTest, FindsFeaturesByIdAndByName) {
  Column by_id = Ids("", {20, 30});
  by_id.view.feature_id = 2;
  ASSERT_TRUE(EncodeTwo(by_id).ok());
  EXPECT_THAT(feature(kItem).rows, ElementsAre(3, 4));
  by_id.view.feature = "price";  // the id wins
  ASSERT_TRUE(EncodeTwo(by_id).ok());
  EXPECT_THAT(feature(kItem).rows, ElementsAre(3, 4));
}

TEST_F(RequestEncoderTest, CountsAndIgnoresUnknownFeatures) {
  Column unknown = Ids("itemx", {1, 2, 3});
  ASSERT_TRUE(Encode(2, {unknown, Ids("", {})}, {unknown, Ids("item", {10, 10})}).ok());
  EXPECT_EQ(counts_.unknown_features, 3);
  EXPECT_THAT(feature(kItem).rows, ElementsAre(2, 2));
  unknown.view.feature_id = 77;
  unknown.view.feature = "item";
  ASSERT_TRUE(EncodeTwo(unknown).ok());
  EXPECT_EQ(counts_.unknown_features, 1);
}

TEST_F(RequestEncoderTest, RefusesAnotherType) {
  ExpectBad(EncodeTwo(Strings("item", {"10", "20"})), "feature 'item': takes its values as ids");
  ExpectBad(EncodeTwo(Numbers("item", {1, 2})), "feature 'item': takes its values as ids");
  ExpectBad(EncodeTwo(Ids("tags", {1, 2})), "feature 'tags': takes its values as strings");
  ExpectBad(EncodeTwo(Numbers("tags", {1, 2})), "feature 'tags': takes its values as strings");
  ExpectBad(EncodeTwo(Ids("price", {1, 2})), "feature 'price': takes its values as numbers");
  ExpectBad(EncodeTwo(Strings("price", {"", ""})), "feature 'price': takes its values as numbers");
  Column both = Ids("item", {10, 20});
  both.numbers = {1, 2};
  ExpectBad(EncodeTwo(both), "feature 'item': takes its values as ids");
}

TEST_F(RequestEncoderTest, RefusesAnotherNumberOfRows) {
  ExpectBad(EncodeTwo(Ids("item", {10})), "feature 'item': 1 values for 2 rows");
  ExpectBad(EncodeTwo(Ids("item", {10, 20, 30})), "feature 'item': 3 values for 2 rows");
  ExpectBad(EncodeTwo(Ids("item", {10}, {1})), "feature 'item': 1 row_lengths for 2 rows");
  ExpectBad(EncodeTwo(Ids("item", {10, 20}, {1, 1, 0})), "feature 'item': 3 row_lengths for 2 rows");
  ExpectBad(EncodeTwo(Ids("item", {10, 20}, {2, 0})), "feature 'item': a row with 2 values");
  ExpectBad(EncodeTwo(Numbers("price", {1, 2}, {2, 0})), "feature 'price': a row with 2 values");
  ExpectBad(EncodeTwo(Ids("item", {10, 20}, {1, 0})), "row_lengths add up to 1, values to 2");
  ExpectBad(EncodeTwo(Strings("tags", {"a"}, {1, 1})), "row_lengths add up to 2, values to 1");
  ExpectBad(Encode(2, {Ids("seen", {10, 20}, {1, 1})}, {}), "feature 'seen': 2 row_lengths for 1 rows");
}

TEST_F(RequestEncoderTest, RefusesLengthsThatOverflow) {
  // 2^32 - 1 + 2 is 1 in 32 bits, and 2^31 + 2^31 is 0.
  ExpectBad(EncodeTwo(Strings("tags", {"a"}, {UINT32_MAX, 2})), "row_lengths add up to 4294967297, values to 1");
  ExpectBad(EncodeTwo(Strings("tags", {}, {1u << 31, 1u << 31})), "row_lengths add up to 4294967296, values to 0");
  ExpectBad(EncodeTwo(Ids("item", {10}, {UINT32_MAX, 2})), "a row with 4294967295 values");
  Column strings = Strings("tags", {"a", "b"});
  strings.string_bytes = {UINT32_MAX, 3};
  ExpectBad(EncodeTwo(strings), "string_bytes add up to 4294967298, strings has 2");
  strings.string_bytes = {1, 0};
  ExpectBad(EncodeTwo(strings), "string_bytes add up to 1, strings has 2");
  strings.string_bytes = {3, 0};
  ExpectBad(EncodeTwo(strings), "string_bytes add up to 3, strings has 2");
  strings.string_bytes = {};
  ExpectBad(EncodeTwo(strings), "string_bytes add up to 0, strings has 2");
}

TEST_F(RequestEncoderTest, RefusesAFeatureThatStandsTwice) {
  const Column item = Ids("item", {10, 20});
  Column item_by_id = Ids("", {10, 20});
  item_by_id.view.feature_id = 2;
  ExpectBad(Encode(2, {}, {item, item_by_id}), "feature 'item': stands twice");
  const Column none = Ids("seen", {}, {0});
  ExpectBad(Encode(1, {none, none}, {}), "feature 'seen': stands twice");
  ExpectBad(Encode(1, {none}, {none}), "feature 'seen': stands twice");
  ExpectBad(Encode(2, {Numbers("log", {1})}, {Numbers("log", {1, 2})}), "feature 'log': stands twice");
}

TEST_F(RequestEncoderTest, OfSeveralWrongFeaturesTheFirstIsNamed) {
  const Column item = Ids("item", {10}), tags = Strings("tags", {"a"}), price = Numbers("price", {NAN, 1});
  ExpectBad(Encode(2, {}, {price, tags, item}), "feature 'item': 1 values for 2 rows");
  ExpectBad(Encode(2, {}, {price, tags}), "feature 'tags': 1 values for 2 rows");
}

TEST_F(RequestEncoderTest, RefusesACandidatesFeatureInTheContext) {
  ExpectBad(Encode(1, {Ids("item", {10})}, {}), "feature 'item': belongs to the candidates");
}

TEST_F(RequestEncoderTest, AContextFeatureAmongTheCandidatesMakesTheBatchFlat) {
  const absl::Status status =
      Encode(3, {Ids("seen", {10, 30}, {2}), Numbers("log", {3})}, {Strings("user", {"a", "", "?"})});
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(batch_.context_rows, 3);
  EXPECT_THAT(feature(kUser).rows, ElementsAre(2, kMissingRow, kOutOfVocabularyRow));
  EXPECT_THAT(feature(kSeen).rows, ElementsAre(2, 4, 2, 4, 2, 4));
  EXPECT_THAT(feature(kSeen).offsets, ElementsAre(0, 2, 4, 6));
  EXPECT_THAT(feature(kLog).values, ElementsAre(std::log(4.0F), std::log(4.0F), std::log(4.0F)));
  EXPECT_THAT(feature(kAge).rows, ElementsAre(kMissingRow, kMissingRow, kMissingRow));  // absent
  ASSERT_TRUE(Encode(2, {Ids("seen", {}, {0})}, {Strings("user", {"a", "a"})}).ok());
  EXPECT_THAT(feature(kSeen).rows, IsEmpty());
  EXPECT_THAT(feature(kSeen).offsets, ElementsAre(0, 0, 0));
  // With one candidate flat and shared are the same.
  ASSERT_TRUE(Encode(1, {}, {Strings("user", {"a"})}).ok());
  EXPECT_EQ(batch_.context_rows, 1);
}

TEST_F(RequestEncoderTest, NoCandidates) {
  ASSERT_TRUE(Encode(0, {Strings("user", {"a"})}, {Ids("item", {}), Strings("tags", {})}).ok());
  EXPECT_EQ(batch_.candidate_rows, 0);
  EXPECT_THAT(feature(kUser).rows, ElementsAre(2));
  EXPECT_THAT(feature(kItem).rows, IsEmpty());
  ExpectBad(Encode(0, {}, {Ids("item", {10})}), "feature 'item': 1 values for 0 rows");
  ExpectBad(Encode(0, {}, {Ids("item", {}), Ids("item", {})}), "feature 'item': stands twice");
  EXPECT_TRUE(Encode(0, {Ids("seen", {10}, {1})}, {Strings("user", {})}).ok());  // flat, without rows
}

TEST_F(RequestEncoderTest, OutputsAreReused) {
  ASSERT_TRUE(Encode(4, {}, {Ids("item", {30, 10, 11, 20}), Strings("tags", {"a", "a", "b", "c"})}).ok());
  ASSERT_TRUE(Encode(1, {}, {Ids("item", {20})}).ok());
  EXPECT_THAT(feature(kItem).rows, ElementsAre(3));
  EXPECT_THAT(feature(kTags).offsets, ElementsAre(0, 0));
  ExpectBad(Encode(2, {}, {Ids("item", {10, 20}), Ids("tags", {1})}), "'tags'");
  ASSERT_TRUE(Encode(1, {}, {}).ok());
  EXPECT_THAT(feature(kItem).rows, ElementsAre(kMissingRow));
}

// What is evaluated from a context that could not be encoded would read what is not there.
TEST_F(RequestEncoderTest, AContextThatFailsIsNotSaidToBeEncoded) {
  const Columns good({Strings("user", {"a"})}), bad({Ids("user", {1})}), items({Ids("item", {10, 20})});
  for (const auto run : {&InReverse, &OnAThreadEach}) {
    int context_encoded = 0;
    const auto encode = [&](const Columns& context) {
      return columns_.encoder().Encode({2, context.views(), items.views()}, &batch_, nullptr, &feature_columns_, *run,
                                       [&] { ++context_encoded; });
    };
    ExpectBad(encode(bad), "'user'");
    EXPECT_EQ(context_encoded, 0);
    EXPECT_TRUE(encode(good).ok());
    EXPECT_EQ(context_encoded, 1);
  }
}

TEST_F(RequestEncoderTest, CountsAddUpAndAreOptional) {
  const Columns items({Ids("item", {10, 99})});
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(columns_.encoder().Encode({2, {}, items.views()}, &batch_, &counts_).ok());
  EXPECT_EQ(counts_.values[kItem], 6);
  EXPECT_EQ(counts_.out_of_vocabulary[kItem], 3);
  EXPECT_TRUE(columns_.encoder().Encode({2, {}, items.views()}, &batch_, nullptr).ok());
}

}  // namespace
}  // namespace hilomoe
