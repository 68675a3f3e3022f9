// Columns of many rows, whose values are looked up in long runs, against one value after another.
#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/model/random_model.h"
#include "tests/runtime/request_columns.h"

namespace hilomoe {
namespace {

// The fixture's vocabularies: INT64 10, 20, 30 and STRING "a", "b", "c" in rows 2, 3, 4.
struct Value {
  int64_t id;
  std::string text;
  uint32_t int64_row, string_row;
};
const Value kValues[] = {{10, "a", 2, 2},
                         {20, "b", 3, 3},
                         {30, "c", 4, 4},
                         {7, "unknown", kOutOfVocabularyRow, kOutOfVocabularyRow},
                         {8, "", kOutOfVocabularyRow, kMissingRow}};

struct Rows {
  std::vector<uint32_t> lengths;
  std::vector<const Value*> values;
};

Rows RandomRows(size_t rows, uint32_t longest, std::mt19937* engine) {
  Rows made;
  for (size_t r = 0; r < rows; ++r) {
    // Long rows are rare, so that runs of all lengths lie between them.
    const uint32_t most = (*engine)() % 16 == 0 ? longest : std::min<uint32_t>(longest, 3);
    made.lengths.push_back((*engine)() % (most + 1));
    for (uint32_t i = 0; i < made.lengths[r]; ++i) made.values.push_back(&kValues[(*engine)() % 5]);
  }
  return made;
}

struct Expected {
  EncodedFeature feature;
  uint64_t values = 0, unknown = 0, missing = 0;
};

Expected OneByOne(const FeatureSpec& feature, const Rows& rows) {
  Expected expected;
  EncodedFeature& out = expected.feature;
  if (feature.is_pooled()) out.offsets.push_back(0);
  size_t first = 0;
  for (const uint32_t length : rows.lengths) {
    const size_t kept = std::min<size_t>(length, feature.max_length), before = out.rows.size();
    const size_t from = first + (feature.kind == v1::Feature::SEQUENCE ? length - kept : 0);
    for (size_t i = from; i < from + kept; ++i) {
      const Value& value = *rows.values[i];
      const uint32_t row = feature.id_type == v1::Feature::INT64 ? value.int64_row : value.string_row;
      if (row == kMissingRow) continue;
      out.rows.push_back(row);
      ++expected.values;
      expected.unknown += row == kOutOfVocabularyRow;
    }
    first += length;
    const bool none = out.rows.size() == before;
    expected.missing += none;
    if (feature.is_pooled()) {
      out.offsets.push_back(static_cast<uint32_t>(out.rows.size()));
    } else if (none) {
      out.rows.push_back(kMissingRow);
    }
  }
  return expected;
}

TEST(EncodeIdsTest, AsOneByOne) {
  const EncoderFixture f(R"(
    features { id: 1 name: "u" kind: CATEGORICAL scope: CANDIDATE id_type: INT64 embedding_width: 1 }
    features { id: 2 name: "t" kind: CATEGORICAL scope: CANDIDATE id_type: STRING embedding_width: 1 }
    features { id: 3 name: "s" kind: SEQUENCE scope: CONTEXT id_type: INT64 embedding_width: 1 max_length: 4 }
    features { id: 4 name: "w" kind: SEQUENCE scope: CONTEXT id_type: STRING embedding_width: 1 max_length: 4 }
    features { id: 5 name: "b" kind: BAG scope: CANDIDATE id_type: INT64 embedding_width: 1 max_length: 4 }
    features { id: 6 name: "g" kind: BAG scope: CANDIDATE id_type: STRING embedding_width: 1 max_length: 4 })");
  std::mt19937 engine(1);
  for (size_t n = 1; n < 300; n += 1 + n / 4) {
    std::vector<Column> columns;
    std::vector<Expected> expected;
    for (const FeatureSpec& feature : f.spec().features()) {
      const Rows rows = RandomRows(n, feature.is_pooled() ? 9 : 1, &engine);
      expected.push_back(OneByOne(feature, rows));
      std::vector<int64_t> ids;
      std::vector<std::string> texts;
      for (const Value* value : rows.values) {
        ids.push_back(value->id);
        texts.push_back(value->text);
      }
      columns.push_back(feature.id_type == v1::Feature::INT64 ? Ids(feature.name, ids, rows.lengths)
                                                              : Strings(feature.name, texts, rows.lengths));
    }
    const Columns candidates(columns);
    EncodedBatch batch;
    EncodeCounts counts;
    ASSERT_TRUE(f.encoder().Encode({n, {}, candidates.views()}, &batch, &counts).ok());
    for (size_t i = 0; i < expected.size(); ++i) {
      const std::string where = absl::StrCat(f.spec().features()[i].name, ", ", n, " rows");
      EXPECT_EQ(batch.features[i].rows, expected[i].feature.rows) << where;
      EXPECT_EQ(batch.features[i].offsets, expected[i].feature.offsets) << where;
      EXPECT_EQ(counts.values[i], expected[i].values) << where;
      EXPECT_EQ(counts.out_of_vocabulary[i], expected[i].unknown) << where;
      EXPECT_EQ(counts.missing[i], expected[i].missing) << where;
    }
  }
}

}  // namespace
}  // namespace hilomoe
