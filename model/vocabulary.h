// Vocabularies: which row of an embedding table an id has. Built from counts, written as a table that is looked up
// where it lies in the model file.
//
// Table: an array of 64-byte buckets, each with up to five (key, row) pairs, filled from the front; row 0 marks a free
// place. INT64 ids are their own keys, STRING ids are keyed by XXH3-64 with the table's seed (the builder re-seeds
// until all its keys differ; a foreign string is taken for one of n ids with probability n / 2^64). An id starts at
// bucket hash * buckets / 2^64 and goes on to the next one while a bucket is full, over at most max_probes buckets.
// At most 70 % of the places are taken.
#ifndef HILOMOE_MODEL_VOCABULARY_H_
#define HILOMOE_MODEL_VOCABULARY_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/model_spec.h"

namespace hilomoe {

struct alignas(64) VocabularyBucket {
  static constexpr int kPlaces = 5;
  uint64_t key[kPlaces];
  uint32_t row[kPlaces];
  uint32_t zero;
};
static_assert(sizeof(VocabularyBucket) == 64);

// Ids -> rows of one table. A value: copies share the buckets, which must outlive it. Look-ups are const, any thread.
class Vocabulary {
 public:
  // A table with a vocabulary. Refuses buckets with rows outside [2, rows) and an impossible max_probes. Whatever a
  // look-up finds is a row of the table, even when the buckets lie in a mapped file and change later.
  static absl::StatusOr<Vocabulary> FromBuckets(absl::Span<const VocabularyBucket> buckets, uint64_t seed,
                                                uint32_t max_probes, uint32_t rows);
  // The same before the buckets are there, as while a file is read: none is looked at. Each is to be checked then.
  static absl::StatusOr<Vocabulary> FromUncheckedBuckets(absl::Span<const VocabularyBucket> buckets, uint64_t seed,
                                                         uint32_t max_probes, uint32_t rows);
  absl::Status CheckBuckets(size_t begin, size_t end) const;
  // A table without one: the id's hash selects one of `hash_buckets` rows.
  static Vocabulary Hashed(uint32_t hash_buckets);

  // The id's row; kOutOfVocabularyRow when it has none.
  uint32_t Find(int64_t id) const;
  uint32_t Find(std::string_view id) const;

  // Of many ids the rows, rows[i] of id i; returns how many have none. Buckets are fetched kAhead at a time before they
  // are looked at: about as many misses of the caches as a core can have under way. By nothing but prefetches in turn,
  // for each holds up what follows it until its address is translated, and what else a loop does leaves room for fewer
  // in flight.
  static constexpr size_t kAhead = 32;
  size_t Find(absl::Span<const int64_t> ids, uint32_t* rows) const;
  // Strings stand one after another in `text`; bytes[i] of it are string i.
  size_t Find(std::string_view text, absl::Span<const uint32_t> bytes, uint32_t* rows) const;
  // Fetches what Find of the same ids looks at first. More bytes than text has are allowed.
  void FetchFirst(absl::Span<const int64_t> ids) const;
  void FetchFirst(std::string_view text, absl::Span<const uint32_t> bytes) const;

  // Of a vocabulary of INT64 ids: those that have a row, in the order of their rows.
  std::vector<int64_t> Int64Ids() const;

 private:
  // What buckets tell ids apart by.
  struct Key {
    uint64_t key;
    uint64_t hash;
  };
  Key KeyOf(int64_t id) const;
  Key KeyOf(std::string_view id) const;
  uint32_t Look(Key key) const;
  void Fetch(Key key) const;
  // next(): the keys of n ids in turn.
  template <class Next>
  size_t FindInTurn(size_t n, const Next& next, uint32_t* rows) const;

  absl::Span<const VocabularyBucket> buckets_;
  uint64_t seed_ = 0;
  uint32_t max_probes_ = 0;
  uint32_t own_rows_ = 0;  // of ids: all but the reserved ones
  uint32_t hash_buckets_ = 0;
};

// The ids of one table in the order of their rows: ids[i] has row i + 2. One of the two lists is filled.
struct VocabularyIds {
  std::vector<int64_t> int64s;
  std::vector<std::string> strings;

  size_t size() const { return int64s.size() + strings.size(); }
};

// The buckets of a table, made from its ids.
struct VocabularyTable {
  std::vector<VocabularyBucket> buckets;
  uint64_t seed = 0;
  uint32_t max_probes = 0;
};
// INVALID_ARGUMENT names an id that stands twice.
absl::StatusOr<VocabularyTable> BuildVocabularyTable(const VocabularyIds& ids);

// Counts ids and keeps the ones that the policy wants.
class VocabularyBuilder {
 public:
  explicit VocabularyBuilder(const TableSpec& table) : table_(table) {}

  void Count(int64_t id) { ++int64s_[id]; }
  void Count(std::string_view id);

  // The kept ids: the most frequent first, equal counts in ascending order of id, so that any order of the same log
  // gives the same rows.
  VocabularyIds Build() const;

 private:
  TableSpec table_;
  absl::flat_hash_map<int64_t, uint64_t> int64s_;
  absl::flat_hash_map<std::string, uint64_t> strings_;
};

}  // namespace hilomoe

#endif  // HILOMOE_MODEL_VOCABULARY_H_
