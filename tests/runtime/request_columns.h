// Columns that own their values, and an encoder over small vocabularies.
#ifndef HILOMOE_TESTS_RUNTIME_REQUEST_COLUMNS_H_
#define HILOMOE_TESTS_RUNTIME_REQUEST_COLUMNS_H_

#include <initializer_list>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/tensor_registry.h"
#include "model/vocabulary.h"
#include "runtime/request_encoder.h"
#include "runtime/request_view.h"
#include "tests/model/random_model.h"

namespace hilomoe {

// `view` holds the name or id; the values stand here.
struct Column {
  ColumnView view;
  std::vector<int64_t> ids;
  std::string strings;
  std::vector<uint32_t> string_bytes;
  std::vector<float> numbers;
  std::vector<uint32_t> row_lengths;
};

inline Column MakeColumn(std::string_view feature, std::vector<uint32_t> row_lengths) {
  Column column;
  column.view.feature = feature;
  column.row_lengths = std::move(row_lengths);
  return column;
}
inline Column Ids(std::string_view feature, std::vector<int64_t> ids, std::vector<uint32_t> row_lengths = {}) {
  Column column = MakeColumn(feature, std::move(row_lengths));
  column.ids = std::move(ids);
  return column;
}
inline Column Numbers(std::string_view feature, std::vector<float> numbers, std::vector<uint32_t> row_lengths = {}) {
  Column column = MakeColumn(feature, std::move(row_lengths));
  column.numbers = std::move(numbers);
  return column;
}
inline Column Strings(std::string_view feature, const std::vector<std::string>& strings,
                      std::vector<uint32_t> row_lengths = {}) {
  Column column = MakeColumn(feature, std::move(row_lengths));
  for (const std::string& text : strings) {
    column.strings += text;
    column.string_bytes.push_back(static_cast<uint32_t>(text.size()));
  }
  return column;
}

// Columns of a request, and views of them that live as long.
class Columns {
 public:
  Columns() = default;
  Columns(std::initializer_list<Column> columns) : Columns(std::vector<Column>(columns)) {}
  explicit Columns(std::vector<Column> columns) : columns_(std::move(columns)) {
    for (const Column& column : columns_) {
      ColumnView& view = views_.emplace_back(column.view);
      view.ids = column.ids;
      view.strings = column.strings;
      view.string_bytes = column.string_bytes;
      view.numbers = column.numbers;
      view.row_lengths = column.row_lengths;
    }
  }
  Columns(const Columns&) = delete;
  Columns& operator=(const Columns&) = delete;

  absl::Span<const ColumnView> views() const { return views_; }

 private:
  std::vector<Column> columns_;
  std::vector<ColumnView> views_;
};

// INT64 tables know 10, 20, 30, STRING tables a, b, c: rows 2, 3, 4. STANDARDISE: mean 3, 1 / deviation 2. QUANTILE of
// four buckets: boundaries -1, 0, 2.5.
class EncoderFixture {
 public:
  static constexpr float kStandardise[] = {3, 2};
  static constexpr float kBoundaries[] = {-1, 0, 2.5};

  explicit EncoderFixture(const std::string& features) : spec_(SpecFromText(features)) {
    const TensorRegistry registry = TensorRegistry::ForTraining(spec_, TableRowsFor(spec_, 3));
    arena_.resize(registry.size());
    const FeatureTensors<float> numeric = registry.Bind(spec_, arena_.data()).features;
    for (size_t f = 0; f < spec_.features().size(); ++f) {
      for (int i = 0; i < 2 && numeric.standardise[f] != nullptr; ++i) numeric.standardise[f][i] = kStandardise[i];
      for (int i = 0; i < 3 && numeric.boundaries[f] != nullptr; ++i) numeric.boundaries[f][i] = kBoundaries[i];
    }
    for (const TableSpec& table : spec_.tables()) {
      if (!table.has_vocabulary()) {
        tables_.emplace_back();
        vocabularies_.push_back(Vocabulary::Hashed(table.hash_buckets));
        continue;
      }
      VocabularyIds ids;
      if (table.id_type == v1::Feature::INT64) {
        ids.int64s = {10, 20, 30};
      } else {
        ids.strings = {"a", "b", "c"};
      }
      const VocabularyTable& built = tables_.emplace_back(*BuildVocabularyTable(ids));
      vocabularies_.push_back(*Vocabulary::FromBuckets(built.buckets, built.seed, built.max_probes, 5));
    }
    encoder_.emplace(spec_, vocabularies_, registry.Bind<const float>(spec_, arena_.data()).features);
  }
  EncoderFixture(const EncoderFixture&) = delete;
  EncoderFixture& operator=(const EncoderFixture&) = delete;

  const ModelSpec& spec() const { return spec_; }
  const RequestEncoder& encoder() const { return *encoder_; }

 private:
  ModelSpec spec_;
  std::vector<float> arena_;
  std::vector<VocabularyTable> tables_;  // buckets do not move when a table does
  std::vector<Vocabulary> vocabularies_;
  std::optional<RequestEncoder> encoder_;
};

inline void ExpectBad(const absl::Status& status, const std::string& message) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << message;
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr(message));
}

}  // namespace hilomoe

#endif  // HILOMOE_TESTS_RUNTIME_REQUEST_COLUMNS_H_
