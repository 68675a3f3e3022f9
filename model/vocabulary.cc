#include "model/vocabulary.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "model/encoded_batch.h"
#include "model/status_macros.h"

#define XXH_INLINE_ALL
#include "xxhash.h"

namespace hilomoe {
namespace {

constexpr double kMaxLoad = 0.7;
constexpr size_t kFirst = 16;  // ids of FetchFirst
// Any constant: a hashed table has no keys that could collide, so it is never re-seeded.
constexpr uint64_t kHashedSeed = 0x48696C6F4D6F4521;

uint64_t HashId(int64_t id, uint64_t seed) { return XXH3_64bits_withSeed(&id, sizeof(id), seed); }
uint64_t HashId(std::string_view id, uint64_t seed) { return XXH3_64bits_withSeed(id.data(), id.size(), seed); }

// The first `bytes` of a text, or what there is of it, off it.
std::string_view Cut(size_t bytes, std::string_view* text) {
  const std::string_view first = text->substr(0, bytes);
  text->remove_prefix(first.size());
  return first;
}

// hash * n / 2^64: even over [0, n) without a division.
uint64_t Scale(uint64_t hash, uint64_t n) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<uint64_t>((static_cast<Wide>(hash) * n) >> 64);
}

bool Full(const VocabularyBucket& bucket) { return bucket.row[VocabularyBucket::kPlaces - 1] != 0; }

// What is wrong with a bucket, which is to be filled from the front with the rows of `count` ids: zero where nothing
// is. Four places at a time and without branches: every bucket of a model is looked at when it is loaded.
using FourRows = uint32_t __attribute__((vector_size(16)));
using FourSigned = int32_t __attribute__((vector_size(16)));
FourRows Faults(const VocabularyBucket& bucket, uint32_t count) {
  static_assert(VocabularyBucket::kPlaces == 5, "the first four places and the last four are all");
  FourRows first, last;
  std::memcpy(&first, bucket.row, sizeof(first));
  std::memcpy(&last, bucket.row + 1, sizeof(last));
  // Whether 0 <= row - kReservedRows < count, as a comparison of signed numbers, which is what baseline vectors have.
  constexpr uint32_t kSign = uint32_t{1} << 31;
  const auto inside = [end = static_cast<int32_t>(count + kSign)](FourRows row) {
    return reinterpret_cast<FourRows>(reinterpret_cast<FourSigned>(row + (kSign - kReservedRows)) < end);
  };
  const FourRows first_outside = ~inside(first), last_inside = inside(last);
  return (first & first_outside) | (last & ~last_inside) | (last_inside & first_outside);
}

struct Entry {
  uint64_t key;
  uint64_t hash;
};

// Inserts; false when the key is there already.
bool Insert(const Entry& entry, uint32_t row, VocabularyTable& table) {
  const size_t n = table.buckets.size();
  size_t b = Scale(entry.hash, n);
  for (uint32_t probe = 1;; ++probe, b = b + 1 == n ? 0 : b + 1) {
    VocabularyBucket& bucket = table.buckets[b];
    for (int i = 0; i < VocabularyBucket::kPlaces; ++i) {
      if (bucket.row[i] == 0) {
        bucket.key[i] = entry.key;
        bucket.row[i] = row;
        table.max_probes = std::max(table.max_probes, probe);
        return true;
      }
      if (bucket.key[i] == entry.key) return false;
    }
  }
}

template <typename Id>
bool TryBuild(const std::vector<Id>& ids, size_t buckets, uint64_t seed, VocabularyTable& table) {
  table.buckets.assign(buckets, VocabularyBucket{});
  table.seed = seed;
  table.max_probes = 1;
  for (size_t i = 0; i < ids.size(); ++i) {
    const uint64_t hash = HashId(ids[i], seed);
    uint64_t key = hash;
    if constexpr (std::is_same_v<Id, int64_t>) key = static_cast<uint64_t>(ids[i]);
    if (!Insert({key, hash}, static_cast<uint32_t>(i) + kReservedRows, table)) return false;
  }
  return true;
}

template <typename Id>
absl::Status CheckDistinct(const std::vector<Id>& ids) {
  absl::flat_hash_set<Id> seen;
  for (const Id& id : ids) {
    if (!seen.insert(id).second) return absl::InvalidArgumentError(absl::StrCat("id '", id, "' stands twice"));
  }
  return absl::OkStatus();
}

template <typename Id>
std::vector<Id> Keep(const absl::flat_hash_map<Id, uint64_t>& counts, const TableSpec& table) {
  std::vector<std::pair<uint64_t, Id>> kept;
  for (const auto& [id, count] : counts) {
    if (count >= table.min_count) kept.emplace_back(count, id);
  }
  std::sort(kept.begin(), kept.end(),
            [](const auto& a, const auto& b) { return a.first != b.first ? a.first > b.first : a.second < b.second; });
  if (table.max_size > 0 && kept.size() > table.max_size) kept.resize(table.max_size);
  std::vector<Id> ids;
  ids.reserve(kept.size());
  for (auto& entry : kept) ids.push_back(std::move(entry.second));
  return ids;
}

}  // namespace

absl::StatusOr<Vocabulary> Vocabulary::FromBuckets(absl::Span<const VocabularyBucket> buckets, uint64_t seed,
                                                   uint32_t max_probes, uint32_t rows) {
  HILOMOE_ASSIGN_OR_RETURN(Vocabulary vocabulary, FromUncheckedBuckets(buckets, seed, max_probes, rows));
  HILOMOE_RETURN_IF_ERROR(vocabulary.CheckBuckets(0, buckets.size()));
  return vocabulary;
}

absl::StatusOr<Vocabulary> Vocabulary::FromUncheckedBuckets(absl::Span<const VocabularyBucket> buckets, uint64_t seed,
                                                            uint32_t max_probes, uint32_t rows) {
  if (buckets.empty()) return absl::DataLossError("a vocabulary without buckets");
  if (max_probes == 0 || max_probes > buckets.size()) {
    return absl::DataLossError(absl::StrCat("max_probes is ", max_probes, " of ", buckets.size(), " buckets"));
  }
  Vocabulary vocabulary;
  vocabulary.buckets_ = buckets;
  vocabulary.seed_ = seed;
  vocabulary.max_probes_ = max_probes;
  vocabulary.own_rows_ = std::max(rows, kReservedRows) - kReservedRows;
  return vocabulary;
}

absl::Status Vocabulary::CheckBuckets(size_t begin, size_t end) const {
  FourRows faults = {};
  for (const VocabularyBucket& bucket : buckets_.subspan(begin, end - begin)) {
    // A file's checksum is made beside, with what it needs next fetched 8 KiB ahead; memory is not to wait for us.
    __builtin_prefetch(&bucket + (size_t{6} << 10) / sizeof(bucket));
    faults |= Faults(bucket, own_rows_);
  }
  if ((faults[0] | faults[1] | faults[2] | faults[3]) == 0) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("a bucket has vocabulary rows outside of [", kReservedRows, ", ",
                                          uint64_t{own_rows_} + kReservedRows, ") or behind a free place"));
}

Vocabulary Vocabulary::Hashed(uint32_t hash_buckets) {
  Vocabulary vocabulary;
  vocabulary.seed_ = kHashedSeed;
  vocabulary.hash_buckets_ = hash_buckets;
  return vocabulary;
}

Vocabulary::Key Vocabulary::KeyOf(int64_t id) const { return {static_cast<uint64_t>(id), HashId(id, seed_)}; }

// The hash alone: building took a seed with which the strings of the vocabulary differ in it.
Vocabulary::Key Vocabulary::KeyOf(std::string_view id) const {
  const uint64_t hash = HashId(id, seed_);
  return {hash, hash};
}

inline uint32_t Vocabulary::Look(Key key) const {
  if (hash_buckets_ > 0) return kReservedRows + static_cast<uint32_t>(Scale(key.hash, hash_buckets_));
  const size_t n = buckets_.size();
  size_t b = Scale(key.hash, n);
  for (uint32_t probe = 0; probe < max_probes_; ++probe, b = b + 1 == n ? 0 : b + 1) {
    const VocabularyBucket& bucket = buckets_.data()[b];
    // All places without a branch: which one an id is in, no processor can foretell. At most one has the key, but free
    // ones, with row 0, have key 0.
    uint32_t row = 0;
#pragma GCC unroll 5
    for (int i = 0; i < VocabularyBucket::kPlaces; ++i) {
      // Read once: in a mapped file it may change.
      const uint32_t own = __atomic_load_n(&bucket.row[i], __ATOMIC_RELAXED);
      row |= own & -static_cast<uint32_t>(bucket.key[i] == key.key);
    }
    if (row - kReservedRows < own_rows_) return row;
    if (!Full(bucket)) break;
  }
  return kOutOfVocabularyRow;
}

inline void Vocabulary::Fetch(Key key) const {
  if (hash_buckets_ == 0) __builtin_prefetch(&buckets_.data()[Scale(key.hash, buckets_.size())]);
}

template <class Next>
size_t Vocabulary::FindInTurn(size_t n, const Next& next, uint32_t* rows) const {
  Key keys[2][kAhead];  // of the ids that are looked for, and of those whose buckets are on their way
  const auto fetch = [&](size_t count, Key* ahead) {
    for (size_t i = 0; i < count; ++i) ahead[i] = next();
    for (size_t i = 0; i < count; ++i) Fetch(ahead[i]);
  };
  size_t unknown = 0;
  fetch(std::min(kAhead, n), keys[0]);
  for (size_t begin = 0, half = 0; begin < n; begin += kAhead, half = 1 - half) {
    const size_t end = std::min(begin + kAhead, n);
    fetch(std::min(kAhead, n - end), keys[1 - half]);
    for (size_t i = begin; i < end; ++i) {
      rows[i] = Look(keys[half][i - begin]);
      unknown += rows[i] == kOutOfVocabularyRow;
    }
  }
  return unknown;
}

uint32_t Vocabulary::Find(int64_t id) const { return Look(KeyOf(id)); }
uint32_t Vocabulary::Find(std::string_view id) const { return Look(KeyOf(id)); }

size_t Vocabulary::Find(absl::Span<const int64_t> ids, uint32_t* rows) const {
  const int64_t* id = ids.data();
  return FindInTurn(
      ids.size(), [&] { return KeyOf(*id++); }, rows);
}

size_t Vocabulary::Find(std::string_view text, absl::Span<const uint32_t> bytes, uint32_t* rows) const {
  const uint32_t* length = bytes.data();
  return FindInTurn(
      bytes.size(), [&] { return KeyOf(Cut(*length++, &text)); }, rows);
}

void Vocabulary::FetchFirst(absl::Span<const int64_t> ids) const {
  for (const int64_t id : ids.first(std::min(kFirst, ids.size()))) Fetch(KeyOf(id));
}

void Vocabulary::FetchFirst(std::string_view text, absl::Span<const uint32_t> bytes) const {
  for (const uint32_t length : bytes.first(std::min(kFirst, bytes.size()))) Fetch(KeyOf(Cut(length, &text)));
}

std::vector<int64_t> Vocabulary::Int64Ids() const {
  std::vector<std::pair<uint32_t, int64_t>> by_row;
  for (const VocabularyBucket& bucket : buckets_) {
    for (int i = 0; i < VocabularyBucket::kPlaces; ++i) {
      if (bucket.row[i] != 0) by_row.emplace_back(bucket.row[i], static_cast<int64_t>(bucket.key[i]));
    }
  }
  std::sort(by_row.begin(), by_row.end());
  std::vector<int64_t> ids;
  ids.reserve(by_row.size());
  for (const auto& [row, id] : by_row) ids.push_back(id);
  return ids;
}

absl::StatusOr<VocabularyTable> BuildVocabularyTable(const VocabularyIds& ids) {
  const double places = static_cast<double>(ids.size()) / kMaxLoad;
  const size_t buckets = static_cast<size_t>(places / VocabularyBucket::kPlaces) + 1;
  VocabularyTable table;
  for (uint64_t seed = 0;; ++seed) {
    const bool distinct =
        ids.strings.empty() ? TryBuild(ids.int64s, buckets, seed, table) : TryBuild(ids.strings, buckets, seed, table);
    if (distinct) return table;
    // Another seed tells strings of one hash apart, but no id from itself.
    if (seed > 0) continue;
    HILOMOE_RETURN_IF_ERROR(CheckDistinct(ids.int64s));
    HILOMOE_RETURN_IF_ERROR(CheckDistinct(ids.strings));
  }
}

void VocabularyBuilder::Count(std::string_view id) {
  // find first: emplace with a temporary string would allocate for every value.
  const absl::string_view key(id.data(), id.size());
  if (const auto found = strings_.find(key); found != strings_.end()) {
    ++found->second;
  } else {
    strings_.emplace(std::string(id), 1);
  }
}

VocabularyIds VocabularyBuilder::Build() const {
  VocabularyIds ids;
  ids.int64s = Keep(int64s_, table_);
  ids.strings = Keep(strings_, table_);
  return ids;
}

}  // namespace hilomoe
