// Which id has which row.
#include "model/vocabulary.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/encoded_batch.h"

namespace hilomoe {
namespace {

using testing::ElementsAre;

constexpr int kPlaces = VocabularyBucket::kPlaces;

uint32_t Rows(const VocabularyIds& ids) { return kReservedRows + static_cast<uint32_t>(ids.size()); }

Vocabulary Open(const VocabularyTable& table, const VocabularyIds& ids) {
  auto vocabulary = Vocabulary::FromBuckets(table.buckets, table.seed, table.max_probes, Rows(ids));
  EXPECT_TRUE(vocabulary.ok()) << vocabulary.status();
  return *vocabulary;
}

// id i has row i + 2, for every id.
void ExpectAllFound(const VocabularyIds& ids) {
  const VocabularyTable table = *BuildVocabularyTable(ids);
  EXPECT_LE(static_cast<double>(ids.size()), 0.7 * kPlaces * static_cast<double>(table.buckets.size()));
  const Vocabulary vocabulary = Open(table, ids);
  for (size_t i = 0; i < ids.int64s.size(); ++i) ASSERT_EQ(vocabulary.Find(ids.int64s[i]), i + 2) << ids.int64s[i];
  for (size_t i = 0; i < ids.strings.size(); ++i) {
    ASSERT_EQ(vocabulary.Find(ids.strings[i]), i + 2) << ids.strings[i].substr(0, 50);
  }
}

VocabularyIds RandomIds(size_t n, uint64_t seed) {
  std::mt19937_64 engine(seed);
  absl::flat_hash_set<int64_t> seen;
  VocabularyIds ids;
  while (ids.size() < n) {
    const auto id = static_cast<int64_t>(engine());
    if (seen.insert(id).second) ids.int64s.push_back(id);
  }
  return ids;
}

// Tables of one bucket and few: ids pass the end of the array and go on at its start.
TEST(VocabularyTest, FindsAllIdsOfEverySmallTable) {
  for (size_t n = 0; n < 120; ++n) {
    ExpectAllFound(RandomIds(n, n));
    VocabularyIds consecutive;
    for (size_t i = 0; i < n; ++i) consecutive.int64s.push_back(static_cast<int64_t>(i));
    ExpectAllFound(consecutive);
  }
}

TEST(VocabularyTest, AnEmptyTableKnowsNothing) {
  const VocabularyIds none;
  const VocabularyTable table = *BuildVocabularyTable(none);
  const Vocabulary vocabulary = Open(table, none);
  for (const int64_t id : {int64_t{0}, int64_t{1}, std::numeric_limits<int64_t>::min()}) {
    EXPECT_EQ(vocabulary.Find(id), kOutOfVocabularyRow);
  }
  EXPECT_EQ(vocabulary.Find(""), kOutOfVocabularyRow);
}

TEST(VocabularyTest, HoldsTheExtremesOfInt64) {
  constexpr int64_t kMin = std::numeric_limits<int64_t>::min(), kMax = std::numeric_limits<int64_t>::max();
  ExpectAllFound({{kMin, kMax, 0, -1}, {}});
  const VocabularyIds without = {{kMin + 1, kMax - 1, 1, -2}, {}};
  const VocabularyTable table = *BuildVocabularyTable(without);
  const Vocabulary vocabulary = Open(table, without);
  // 0 is the key of a free place, too.
  for (const int64_t id : {kMin, kMax, int64_t{0}, int64_t{-1}}) EXPECT_EQ(vocabulary.Find(id), kOutOfVocabularyRow);
}

TEST(VocabularyTest, TwoHundredThousandIds) {
  VocabularyIds ids = RandomIds(400'000, 3);
  const std::vector<int64_t> foreign(ids.int64s.begin() + 200'000, ids.int64s.end());
  ids.int64s.resize(200'000);
  ExpectAllFound(ids);
  const VocabularyTable table = *BuildVocabularyTable(ids);
  const Vocabulary vocabulary = Open(table, ids);
  for (const int64_t id : foreign) ASSERT_EQ(vocabulary.Find(id), kOutOfVocabularyRow);
  // Load 0.7 of buckets of 5 (Knuth 6.4, table 4): a look-up reads less than two buckets, a run is short.
  EXPECT_GT(table.max_probes, 1);
  EXPECT_LE(table.max_probes, 40);
}

TEST(VocabularyTest, MaxProbesBoundsTheSearch) {
  const VocabularyIds ids = RandomIds(200'000, 4);
  const VocabularyTable table = *BuildVocabularyTable(ids);
  ASSERT_GT(table.max_probes, 1);
  // Some id needs all of them; none needs more.
  const auto missed = [&](uint32_t max_probes) {
    const auto vocabulary = Vocabulary::FromBuckets(table.buckets, table.seed, max_probes, Rows(ids));
    return std::count_if(ids.int64s.begin(), ids.int64s.end(),
                         [&](int64_t id) { return vocabulary->Find(id) == kOutOfVocabularyRow; });
  };
  EXPECT_EQ(missed(table.max_probes), 0);
  EXPECT_GT(missed(table.max_probes - 1), 0);
  EXPECT_GT(missed(1), missed(2));
}

TEST(VocabularyTest, StringsAreBytes) {
  VocabularyIds ids;
  ids.strings = {"a",
                 std::string("a\0", 2),
                 std::string("a\0b", 3),
                 std::string(1, '\0'),
                 std::string(2, '\0'),
                 " ",
                 "\xff\xfe",
                 std::string(100'000, 'x'),
                 std::string(100'001, 'x'),
                 std::string(240, 'y'),
                 std::string(241, 'y'),
                 "ab",
                 "b"};
  ExpectAllFound(ids);
  const VocabularyTable table = *BuildVocabularyTable(ids);
  const Vocabulary vocabulary = Open(table, ids);
  for (const std::string& id : {std::string(""), std::string("A"), std::string("a\0c", 3), std::string(3, '\0'),
                                std::string(100'002, 'x'), std::string(239, 'y')}) {
    EXPECT_EQ(vocabulary.Find(id), kOutOfVocabularyRow) << id.size();
  }
}

TEST(VocabularyTest, ManyStrings) {
  VocabularyIds ids;
  for (int i = 0; i < 50'000; ++i) ids.strings.push_back(absl::StrCat("user/", i));
  ExpectAllFound(ids);
  const VocabularyTable table = *BuildVocabularyTable(ids);
  const Vocabulary vocabulary = Open(table, ids);
  for (int i = 50'000; i < 100'000; ++i) ASSERT_EQ(vocabulary.Find(absl::StrCat("user/", i)), kOutOfVocabularyRow);
}

// An id that stands twice has two rows; no seed changes that.
TEST(VocabularyTest, RefusesAnIdThatStandsTwice) {
  for (const VocabularyIds& ids : {VocabularyIds{{7, 8, -3, 8}, {}}, VocabularyIds{{}, {"a", "8", "b", "8"}}}) {
    const auto table = BuildVocabularyTable(ids);
    EXPECT_EQ(table.status().code(), absl::StatusCode::kInvalidArgument) << table.status();
    EXPECT_EQ(table.status().message(), "id '8' stands twice");
  }
}

TEST(VocabularyTest, RefusesUnsoundBuckets) {
  const VocabularyIds ids = RandomIds(2'000, 5);
  const VocabularyTable table = *BuildVocabularyTable(ids);
  const auto open = [](const VocabularyTable& t, uint32_t rows) {
    return Vocabulary::FromBuckets(t.buckets, t.seed, t.max_probes, rows).status().code();
  };
  ASSERT_EQ(open(table, Rows(ids)), absl::StatusCode::kOk);
  EXPECT_EQ(open(table, Rows(ids) - 1), absl::StatusCode::kDataLoss);
  EXPECT_EQ(open(table, 0), absl::StatusCode::kDataLoss);
  const auto changed = [&](const auto& change) {
    VocabularyTable t = table;
    change(t);
    return open(t, Rows(ids));
  };
  EXPECT_EQ(changed([](auto& t) { t.max_probes = 0; }), absl::StatusCode::kDataLoss);
  EXPECT_EQ(changed([](auto& t) { t.max_probes = static_cast<uint32_t>(t.buckets.size()) + 1; }),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(changed([](auto& t) { t.buckets.clear(); }), absl::StatusCode::kDataLoss);
  for (int place = 0; place < kPlaces; ++place) {
    const auto used =
        std::find_if(table.buckets.begin(), table.buckets.end(), [&](auto& b) { return b.row[place] != 0; });
    ASSERT_NE(used, table.buckets.end()) << place;
    const auto at = used - table.buckets.begin();
    for (const uint32_t row : {1u, Rows(ids), UINT32_MAX}) {
      EXPECT_EQ(changed([&](auto& t) { t.buckets[at].row[place] = row; }), absl::StatusCode::kDataLoss)
          << place << ": " << row;
    }
    // A free place before one that is taken.
    if (place + 1 < kPlaces && used->row[place + 1] != 0) {
      EXPECT_EQ(changed([&](auto& t) { t.buckets[at].row[place] = 0; }), absl::StatusCode::kDataLoss) << place;
    }
  }
}

// A table that is full everywhere ends a search all the same.
TEST(VocabularyTest, EndsInAFullTable) {
  std::vector<VocabularyBucket> buckets(8);
  for (VocabularyBucket& bucket : buckets) std::fill_n(bucket.row, kPlaces, 2);
  const auto vocabulary = Vocabulary::FromBuckets(buckets, 0, 8, 3);
  ASSERT_TRUE(vocabulary.ok());
  for (int64_t id = 1; id < 100; ++id) EXPECT_EQ(vocabulary->Find(id), kOutOfVocabularyRow);
}

// Of known and unknown ids and empty strings, at every number of ids around those that are fetched at once.
TEST(VocabularyTest, FindsManyAsItFindsEach) {
  const VocabularyIds known = RandomIds(500, 21);
  VocabularyIds words;
  for (int i = 0; i < 500; ++i) words.strings.push_back(absl::StrCat(std::string(i % 40, 'w'), i));
  const VocabularyTable int64_table = *BuildVocabularyTable(known), string_table = *BuildVocabularyTable(words);
  const auto expect_same = [&](const Vocabulary& int64s, const Vocabulary& strings, size_t n) {
    std::vector<int64_t> ids;
    std::string text;
    std::vector<uint32_t> bytes, rows(n), expected_int64s, expected_strings;
    for (size_t i = 0; i < n; ++i) {
      ids.push_back(i % 3 == 0 ? static_cast<int64_t>(i) : known.int64s[i * 7 % 500]);
      const std::string word = i % 5 == 0 ? "" : i % 5 == 1 ? absl::StrCat("x", i) : words.strings[i * 11 % 500];
      text += word;
      bytes.push_back(static_cast<uint32_t>(word.size()));
      expected_int64s.push_back(int64s.Find(ids[i]));
      expected_strings.push_back(strings.Find(word));
    }
    const auto unknown = [](const std::vector<uint32_t>& of) {
      return static_cast<size_t>(std::count(of.begin(), of.end(), kOutOfVocabularyRow));
    };
    int64s.FetchFirst(ids);
    EXPECT_EQ(int64s.Find(ids, rows.data()), unknown(expected_int64s)) << n;
    EXPECT_EQ(rows, expected_int64s) << n;
    strings.FetchFirst(text, bytes);
    strings.FetchFirst(std::string_view(text).substr(0, text.size() / 2), bytes);
    EXPECT_EQ(strings.Find(text, bytes, rows.data()), unknown(expected_strings)) << n;
    EXPECT_EQ(rows, expected_strings) << n;
  };
  for (size_t n = 0; n <= 4 * Vocabulary::kAhead + 1; ++n) {
    expect_same(Open(int64_table, known), Open(string_table, words), n);
    expect_same(Vocabulary::Hashed(1000), Vocabulary::Hashed(1000), n);
  }
}

TEST(VocabularyTest, HashedRowsAreEvenAndInRange) {
  constexpr uint32_t kBuckets = 50;
  const Vocabulary vocabulary = Vocabulary::Hashed(kBuckets);
  std::vector<int> hits(kReservedRows + kBuckets, 0);
  for (int64_t id = -25'000; id < 25'000; ++id) {
    const uint32_t row = vocabulary.Find(id);
    ASSERT_LT(row, hits.size());
    ++hits[row];
    ASSERT_LT(vocabulary.Find(absl::StrCat("s", id)), hits.size());
    ASSERT_GE(vocabulary.Find(absl::StrCat("s", id)), kReservedRows);
  }
  EXPECT_EQ(hits[kOutOfVocabularyRow], 0);
  EXPECT_EQ(hits[kMissingRow], 0);
  // Binomial of mean 1000 and deviation 31.3: seven deviations.
  for (size_t i = kReservedRows; i < hits.size(); ++i) EXPECT_NEAR(hits[i], 1000, 220) << i;
}

// A trained table is of use only with the hash that it was trained with: these rows must never change. Computed with
// XXH3_64bits_withSeed alone: 2 + hash * 10^6 / 2^64.
TEST(VocabularyTest, TheHashStaysTheSame) {
  const Vocabulary vocabulary = Vocabulary::Hashed(1'000'000);
  EXPECT_EQ(vocabulary.Find(0), 216379);
  EXPECT_EQ(vocabulary.Find(-1), 696376);
  EXPECT_EQ(vocabulary.Find(123'456'789), 972462);
  EXPECT_EQ(vocabulary.Find(""), 957066);
  EXPECT_EQ(vocabulary.Find("abc"), 285417);
  EXPECT_EQ(vocabulary.Find(std::string(300, 'z')), 465513);
}

TEST(VocabularyBuilderTest, OrdersByCountThenId) {
  TableSpec table;
  VocabularyBuilder builder(table);
  for (const int64_t id : {5, -3, 5, 9, 9, 5, 7, -8}) builder.Count(id);
  EXPECT_THAT(builder.Build().int64s, ElementsAre(5, 9, -8, -3, 7));
  VocabularyBuilder strings(table);
  for (const char* id : {"b", "a", "b", "\xff", "B", ""}) strings.Count(std::string_view(id));
  EXPECT_THAT(strings.Build().strings, ElementsAre("b", "", "B", "a", "\xff"));
}

TEST(VocabularyBuilderTest, AppliesMinCountAndMaxSize) {
  TableSpec table;
  table.min_count = 2;
  VocabularyBuilder twice(table);
  for (const int64_t id : {1, 2, 2, 3, 3, 3, 4, 4}) twice.Count(id);
  EXPECT_THAT(twice.Build().int64s, ElementsAre(3, 2, 4));
  table.max_size = 2;
  VocabularyBuilder two(table);
  for (const int64_t id : {1, 2, 2, 3, 3, 3, 4, 4}) two.Count(id);
  EXPECT_THAT(two.Build().int64s, ElementsAre(3, 2));
  table.min_count = 4;
  VocabularyBuilder none(table);
  for (const int64_t id : {1, 2, 2, 3, 3, 3, 4, 4}) none.Count(id);
  EXPECT_EQ(none.Build().size(), 0);
}

TEST(VocabularyBuilderTest, DoesNotDependOnTheOrderOfTheLog) {
  std::vector<int64_t> log;
  for (int64_t id = 0; id < 3000; ++id) log.insert(log.end(), 1 + id % 5, id * 7919 % 100'003 - 50'000);
  TableSpec table;
  table.min_count = 2;
  table.max_size = 1500;
  const auto build = [&](uint64_t seed) {
    std::shuffle(log.begin(), log.end(), std::mt19937_64(seed));
    VocabularyBuilder int64s(table), strings(table);
    for (const int64_t id : log) {
      int64s.Count(id);
      strings.Count(std::string_view(std::to_string(id)));
    }
    return std::pair(int64s.Build().int64s, strings.Build().strings);
  };
  const auto first = build(1);
  EXPECT_EQ(first.first.size(), 1500);
  EXPECT_EQ(first.second.size(), 1500);
  for (uint64_t seed = 2; seed < 6; ++seed) EXPECT_TRUE(build(seed) == first) << seed;
}

}  // namespace
}  // namespace hilomoe
