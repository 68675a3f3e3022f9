#include "tools/train/batch_source.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/model/test_files.h"
#include "tools/train/random.h"

namespace hilomoe {
namespace {

using testing::HasSubstr;

RowColumns Columns() {
  RowColumns columns;
  columns.features = {RowColumns::Kind::kRow, RowColumns::Kind::kPooled, RowColumns::Kind::kNumberOrMissing};
  columns.weights = true;
  columns.groups = true;
  return columns;
}

// Row i has the id i in every column.
void AppendRow(uint32_t i, LabelledRows* rows) {
  rows->encoded.features.resize(3);
  EncodedFeature& pooled = rows->encoded.features[1];
  rows->encoded.features[0].rows.push_back(i);
  if (pooled.offsets.empty()) pooled.offsets.push_back(0);
  for (uint32_t n = 0; n < i % 4; ++n) pooled.rows.push_back(i + n);
  pooled.offsets.push_back(static_cast<uint32_t>(pooled.rows.size()));
  rows->encoded.features[2].values.push_back(static_cast<float>(i) / 2);
  rows->encoded.features[2].missing.push_back(i % 3 == 0 ? 1 : 0);
  rows->labels.push_back(i % 2 == 0 ? 1 : 0);
  rows->weights.push_back(static_cast<float>(i % 7));
  rows->groups.push_back(i);
  rows->encoded.candidate_rows = rows->encoded.context_rows = rows->size();
}

// The ids of a batch, after a look at every column.
std::vector<uint32_t> Ids(const LabelledRows& batch) {
  LabelledRows expected;
  for (const uint32_t id : batch.encoded.features[0].rows) AppendRow(id, &expected);
  EXPECT_EQ(batch.encoded.features[1].rows, expected.encoded.features[1].rows);
  EXPECT_EQ(batch.encoded.features[1].offsets, expected.encoded.features[1].offsets);
  EXPECT_EQ(batch.encoded.features[2].values, expected.encoded.features[2].values);
  EXPECT_EQ(batch.encoded.features[2].missing, expected.encoded.features[2].missing);
  EXPECT_EQ(batch.labels, expected.labels);
  EXPECT_EQ(batch.weights, expected.weights);
  EXPECT_EQ(batch.encoded.candidate_rows, expected.size());
  EXPECT_EQ(batch.encoded.context_rows, expected.size());
  return batch.encoded.features[0].rows;
}

class BatchSourceTest : public testing::Test {
 protected:
  // `rows` rows in blocks of block_rows.
  RowCache Cache(uint32_t rows, uint32_t block_rows) {
    absl::StatusOr<RowCacheWriter> writer = RowCacheWriter::Create(directory_ / "rows", Columns());
    EXPECT_TRUE(writer.ok());
    for (uint32_t begin = 0; begin < rows; begin += block_rows) {
      LabelledRows block;
      for (uint32_t i = begin; i < std::min(rows, begin + block_rows); ++i) AppendRow(i, &block);
      EXPECT_TRUE(writer->Append(block).ok());
    }
    EXPECT_TRUE(writer->Commit({}).ok());
    absl::StatusOr<RowCache> cache = RowCache::Open(directory_ / "rows", Columns());
    EXPECT_TRUE(cache.ok()) << cache.status();
    return *std::move(cache);
  }
  static std::vector<uint32_t> Epoch(BatchSource& source, uint64_t stage, uint64_t epoch) {
    std::vector<uint32_t> all;
    for (uint64_t b = 0; b < source.batches(); ++b) {
      const absl::StatusOr<const LabelledRows*> batch = source.Get(stage, epoch, b);
      EXPECT_TRUE(batch.ok()) << batch.status();
      const std::vector<uint32_t> ids = Ids(**batch);
      all.insert(all.end(), ids.begin(), ids.end());
    }
    return all;
  }

  TestDirectory directory_;
};

// Blocks of more than half of kBlockRows are not joined by the writer.
constexpr uint32_t kRows = 98'000, kBlock = 9'000;

TEST_F(BatchSourceTest, AnEpochHasEveryRowOnceInWindowsOfBoundedSize) {
  const RowCache cache = Cache(kRows, kBlock);
  ASSERT_EQ(cache.blocks(), 11u);
  for (const size_t buffer : {size_t{1}, size_t{1} << 20, size_t{2} << 20, size_t{1} << 30}) {
    BatchSource source(cache, {.seed = 5, .batch_rows = 1000, .buffer_bytes = buffer});
    EXPECT_EQ(source.batches(), 98u);
    std::vector<uint32_t> first = Epoch(source, 0, 0);
    EXPECT_NE(first, Epoch(source, 0, 1)) << buffer;
    EXPECT_NE(first, Epoch(source, 1, 0)) << buffer;
    std::set<uint32_t> start;  // blocks that the first batches come from
    for (size_t i = 0; i < 3000; ++i) start.insert(first[i] / kBlock);
    // A buffer of n bytes has windows of n / 2, here of about 32 bytes a row.
    const size_t blocks = buffer < cache.bytes() ? std::max<size_t>(buffer / 2 / cache.block_bytes(0), 1) : 11;
    EXPECT_EQ(start.size(), blocks) << buffer;
    std::sort(first.begin(), first.end());
    for (uint32_t i = 0; i < kRows; ++i) ASSERT_EQ(first[i], i) << buffer;
  }
}

TEST_F(BatchSourceTest, ALogThatFitsIsShuffledPerfectly) {
  const RowCache cache = Cache(30'000, kBlock);
  BatchSource source(cache, {.seed = 5, .batch_rows = 1000, .buffer_bytes = cache.bytes()});
  std::vector<uint32_t> order(30'000);
  std::iota(order.begin(), order.end(), 0u);
  Shuffle(Random(5, 0x0BDE, 2, 3), &order);
  EXPECT_EQ(Epoch(source, 2, 3), order);
}

TEST_F(BatchSourceTest, BatchesAreTheSameInWhateverOrderTheyAreAskedFor) {
  const RowCache cache = Cache(kRows, kBlock);
  for (const size_t buffer : {size_t{1}, size_t{1} << 20, size_t{1} << 30}) {
    const BatchSource::Options options{.seed = 1, .batch_rows = 3001, .buffer_bytes = buffer};
    std::map<std::pair<uint64_t, uint64_t>, std::vector<uint32_t>> expected;
    {
      BatchSource source(cache, options);
      for (uint64_t epoch = 0; epoch < 2; ++epoch) {
        for (uint64_t b = 0; b < source.batches(); ++b) expected[{epoch, b}] = Ids(**source.Get(0, epoch, b));
      }
    }
    std::mt19937 engine(4);
    BatchSource source(cache, options);
    for (int i = 0; i < 40; ++i) {
      const uint64_t epoch = engine() % 2, b = engine() % source.batches();
      EXPECT_EQ(Ids(**source.Get(0, epoch, b)), (expected[{epoch, b}])) << buffer << " " << epoch << " " << b;
      // And another that goes on from here, as a resumed run does.
      if (i % 10 == 0 && b + 1 < source.batches()) {
        BatchSource resumed(cache, options);
        EXPECT_EQ(Ids(**resumed.Get(0, epoch, b)), (expected[{epoch, b}]));
        EXPECT_EQ(Ids(**resumed.Get(0, epoch, b + 1)), (expected[{epoch, b + 1}]));
      }
    }
  }
}

TEST_F(BatchSourceTest, ASingleRowLeftOverIsDropped) {
  // In the second case the row left over is a block, and with a small buffer a window, of its own.
  for (const auto& [rows, block] : {std::pair(27'649u, kBlock), std::pair(32'769u, 16'384u)}) {
    const RowCache cache = Cache(rows, block);
    for (const size_t buffer : {size_t{1}, size_t{1} << 30}) {
      BatchSource source(cache, {.seed = 1, .batch_rows = 1024, .buffer_bytes = buffer});
      EXPECT_EQ(source.batches(), rows / 1024);
      for (uint64_t epoch = 0; epoch < 4; ++epoch) {
        std::vector<uint32_t> ids = Epoch(source, 0, epoch);
        EXPECT_EQ(ids.size(), rows - 1);
        std::sort(ids.begin(), ids.end());
        EXPECT_EQ(std::adjacent_find(ids.begin(), ids.end()), ids.end()) << "a row came twice";
      }
    }
  }
}

TEST_F(BatchSourceTest, SmallAndShortBatches) {
  const RowCache cache = Cache(10, kBlock);
  BatchSource larger(cache, {.seed = 1, .batch_rows = 4096, .buffer_bytes = 1 << 20});
  EXPECT_EQ(larger.batches(), 1u);
  EXPECT_EQ(Epoch(larger, 0, 0).size(), 10u);
  BatchSource smaller(cache, {.seed = 1, .batch_rows = 4, .buffer_bytes = 1 << 20});
  EXPECT_EQ(smaller.batches(), 3u);
  EXPECT_EQ(Epoch(smaller, 0, 0).size(), 10u);
}

TEST_F(BatchSourceTest, AFileThatIsCutShortInTheMiddleOfARunIsAnError) {
  const RowCache cache = Cache(kRows, kBlock);
  BatchSource source(cache, {.seed = 1, .batch_rows = 1000, .buffer_bytes = 1});
  ASSERT_TRUE(source.Get(0, 0, 0).ok());
  ASSERT_EQ(::truncate((directory_ / "rows/rows.bin").c_str(), 1000), 0);
  absl::Status status;
  for (uint64_t b = 1; b < source.batches() && status.ok(); ++b) status = source.Get(0, 0, b).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("rows.bin': block"));
  EXPECT_FALSE(source.Get(0, 0, 3).ok());
}

TEST_F(BatchSourceTest, ItsThreadTakesNoSignals) {
  const RowCache cache = Cache(100, kBlock);
  BatchSource source(cache, {.seed = 1, .batch_rows = 10, .buffer_bytes = 1 << 20});
  ASSERT_TRUE(source.Get(0, 0, 0).ok());
  int others = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    if (task.path().filename() == std::to_string(::getpid())) continue;
    std::ifstream file(task.path() / "status");
    for (std::string word, mask; file >> word;) {
      if (word != "SigBlk:") continue;
      file >> mask;
      ++others;
      const uint64_t blocked = std::stoull(mask, nullptr, 16);
      EXPECT_TRUE((blocked >> (SIGINT - 1) & 1) == 1 && (blocked >> (SIGTERM - 1) & 1) == 1) << mask;
    }
  }
  EXPECT_GE(others, 1);
}

}  // namespace
}  // namespace hilomoe
