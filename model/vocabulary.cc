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
// Any constant: a hashed table has no keys that could collide, so it is never re-seeded.
constexpr uint64_t kHashedSeed = 0x48696C6F4D6F4521;

uint64_t HashId(int64_t id, uint64_t seed) { return XXH3_64bits_withSeed(&id, sizeof(id), seed); }
uint64_t HashId(std::string_view id, uint64_t seed) { return XXH3_64bits_withSeed(id.data(), id.size(), seed); }

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
    // A file's checksum is made beside, with what it needs next fetched 4 KiB ahead; memory is not to wait for us.
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

uint32_t Vocabulary::Look(uint64_t key, uint64_t hash) const {
  const size_t n = buckets_.size();
  size_t b = Scale(hash, n);
  for (uint32_t probe = 0; probe < max_probes_; ++probe, b = b + 1 == n ? 0 : b + 1) {
    const VocabularyBucket& bucket = buckets_[b];
    for (int i = 0; i < VocabularyBucket::kPlaces; ++i) {
      if (bucket.key[i] != key) continue;
      // Read once: in a mapped file it may change. A free place's row 0 fails as well.
      const uint32_t row = __atomic_load_n(&bucket.row[i], __ATOMIC_RELAXED);
      if (row - kReservedRows < own_rows_) return row;
    }
    if (!Full(bucket)) break;
  }
  return kOutOfVocabularyRow;
}

uint64_t Vocabulary::Hash(int64_t id) const { return HashId(id, seed_); }
uint64_t Vocabulary::Hash(std::string_view id) const { return HashId(id, seed_); }

void Vocabulary::Prefetch(uint64_t hash) const {
  if (hash_buckets_ == 0) __builtin_prefetch(&buckets_[Scale(hash, buckets_.size())]);
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

uint32_t Vocabulary::Find(int64_t id, uint64_t hash) const {
  if (hash_buckets_ > 0) return kReservedRows + static_cast<uint32_t>(Scale(hash, hash_buckets_));
  return Look(static_cast<uint64_t>(id), hash);
}

uint32_t Vocabulary::Find(std::string_view, uint64_t hash) const {
  if (hash_buckets_ > 0) return kReservedRows + static_cast<uint32_t>(Scale(hash, hash_buckets_));
  return Look(hash, hash);
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
