#include "tools/train/log_cache.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/model/random_model.h"
#include "tests/model/test_files.h"
#include "tools/train/log_encoder.h"

namespace hilomoe {
namespace {

namespace fs = std::filesystem;
using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr char kHeader[] = "label,request,w,user,item,history,tags,price,age,days,hash\n";

std::string RandomLog(size_t rows, uint64_t seed) {
  std::mt19937_64 engine(seed);
  const auto some = [&](uint64_t n) { return std::to_string(engine() % n); };
  const auto list = [&](const std::string& prefix) {
    std::string cell;
    for (uint64_t i = engine() % 8; i > 0; --i) cell += prefix + some(20) + "^";
    return cell;
  };
  std::string log = kHeader;
  for (size_t r = 0; r < rows; ++r) {
    const std::string price = engine() % 5 == 0 ? "" : some(1000);
    log += some(2) + "," + some(rows / 5 + 1) + "," + some(3) + ".5,u" + some(30) + "," + some(20) + "," + list("") +
           "," + list("t") + "," + price + "," + some(90) + "," + some(500) + "," + some(99) + "\n";
  }
  return log;
}

void ExpectSameRows(const LabelledRows& a, const LabelledRows& b) {
  EXPECT_EQ(a.labels, b.labels);
  EXPECT_EQ(a.weights, b.weights);
  EXPECT_EQ(a.groups, b.groups);
  EXPECT_EQ(a.encoded.candidate_rows, b.encoded.candidate_rows);
  ASSERT_EQ(a.encoded.features.size(), b.encoded.features.size());
  for (size_t f = 0; f < a.encoded.features.size(); ++f) {
    EXPECT_EQ(a.encoded.features[f].rows, b.encoded.features[f].rows) << f;
    EXPECT_EQ(a.encoded.features[f].offsets, b.encoded.features[f].offsets) << f;
    EXPECT_EQ(a.encoded.features[f].values, b.encoded.features[f].values) << f;
    EXPECT_EQ(a.encoded.features[f].missing, b.encoded.features[f].missing) << f;
  }
}

LabelledRows ReadAll(const RowCache& cache) {
  LabelledRows all, some;
  RowReader reader(cache, 1000);
  while (true) {
    const absl::StatusOr<bool> more = reader.Next(&some);
    EXPECT_TRUE(more.ok()) << more.status();
    if (!more.ok() || !*more) return all;
    AppendRows(some.encoded, &all.encoded);
    all.labels.insert(all.labels.end(), some.labels.begin(), some.labels.end());
    all.weights.insert(all.weights.end(), some.weights.begin(), some.weights.end());
    all.groups.insert(all.groups.end(), some.groups.begin(), some.groups.end());
  }
}

class LogCacheTest : public testing::Test {
 protected:
  LogCacheTest() : spec_(SpecFromText(std::string(kAllFeatures) + "network {}")) {
    WriteBytes(train_, RandomLog(3000, 1));
    WriteBytes(valid_, RandomLog(500, 2));
  }

  LogCache::Options Options() const {
    return {directory_ / "cache", {.label = "label", .group_by = "request", .weight = "w"}, {train_}};
  }
  // What opening says on stderr, but for progress.
  std::string OpenAgain(uint64_t* train, uint64_t* valid) const {
    testing::internal::CaptureStderr();
    const absl::StatusOr<LogCache> cache = LogCache::Open(spec_, Options());
    EXPECT_TRUE(cache.ok()) << cache.status();
    if (cache.ok()) {
      const absl::StatusOr<RowCache> rows = cache->Rows("valid", {valid_});
      EXPECT_TRUE(rows.ok()) << rows.status();
      *train = cache->training_rows().fingerprint();
      if (rows.ok()) *valid = rows->fingerprint();
    }
    std::string told, line;
    for (std::istringstream text(testing::internal::GetCapturedStderr()); std::getline(text, line);) {
      if (line.find("rows/s") == std::string::npos) told += line + "\n";
    }
    return told;
  }
  std::string CacheOf(const std::string& name) const {
    for (const auto& entry : fs::directory_iterator(directory_ / "cache")) {
      if (entry.path().filename().string().rfind(name + "-", 0) == 0) return entry.path().string();
    }
    ADD_FAILURE() << "no cache of " << name;
    return "";
  }

  TestDirectory directory_;
  const ModelSpec spec_;
  const std::string train_ = directory_ / "train.csv", valid_ = directory_ / "valid.csv";
};

TEST_F(LogCacheTest, RowsAreThoseOfTheLogs) {
  // More than a block, in two logs, the second of which begins within a block.
  LogCache::Options options = Options();
  options.training_logs.push_back(directory_ / "more.csv");
  WriteBytes(options.training_logs[1], RandomLog(33'333, 3));
  const absl::StatusOr<LogCache> cache = LogCache::Open(spec_, options);
  ASSERT_TRUE(cache.ok()) << cache.status();
  EXPECT_GT(cache->training_rows().blocks(), 2u);

  const absl::StatusOr<LogStatistics> statistics = MeasureLog(options.training_logs, spec_, options.columns);
  ASSERT_TRUE(statistics.ok());
  const auto encoder = LogEncoder::Create(spec_, statistics->vocabularies, NumericTensors(*statistics));
  ASSERT_TRUE(encoder.ok()) << encoder.status();
  LabelledRows expected;
  absl::StatusOr<LogChunks> log = LogChunks::Open(options.training_logs, spec_, options.columns);
  ASSERT_TRUE(log.ok());
  LogChunk chunk;
  EncodedBatch batch;
  while (*log->Next(777, &chunk)) {
    ASSERT_TRUE(encoder->Encode(chunk, &batch).ok());
    AppendRows(batch, &expected.encoded);
    expected.labels.insert(expected.labels.end(), chunk.labels.begin(), chunk.labels.end());
    expected.weights.insert(expected.weights.end(), chunk.weights.begin(), chunk.weights.end());
    expected.groups.insert(expected.groups.end(), chunk.groups.begin(), chunk.groups.end());
  }
  ASSERT_EQ(expected.size(), 36'333u);
  ExpectSameRows(ReadAll(cache->training_rows()), expected);
}

TEST_F(LogCacheTest, ASecondStartParsesNothing) {
  uint64_t train = 0, valid = 0;
  EXPECT_EQ(OpenAgain(&train, &valid), "");
  absl::StatusOr<LogCache> first = LogCache::Open(spec_, Options());
  ASSERT_TRUE(first.ok());
  // Logs that cannot be parsed, but look the same from outside.
  for (const std::string& log : {train_, valid_}) {
    struct stat before {};
    ASSERT_EQ(::stat(log.c_str(), &before), 0);
    WriteBytes(log, std::string(static_cast<size_t>(before.st_size), '"'));
    const timespec times[2] = {before.st_atim, before.st_mtim};
    ASSERT_EQ(::utimensat(AT_FDCWD, log.c_str(), times, 0), 0);
  }
  uint64_t train_again = 0, valid_again = 0;
  EXPECT_EQ(OpenAgain(&train_again, &valid_again), "");
  EXPECT_EQ(train_again, train);
  EXPECT_EQ(valid_again, valid);
  absl::StatusOr<LogCache> second = LogCache::Open(spec_, Options());
  ASSERT_TRUE(second.ok());
  for (size_t i = 0; i < spec_.tables().size(); ++i) {
    EXPECT_EQ(second->statistics().vocabularies[i].int64s, first->statistics().vocabularies[i].int64s);
    EXPECT_EQ(second->statistics().vocabularies[i].strings, first->statistics().vocabularies[i].strings);
  }
  EXPECT_EQ(second->statistics().standardise, first->statistics().standardise);
  EXPECT_EQ(second->statistics().boundaries, first->statistics().boundaries);
  EXPECT_EQ(second->statistics().rows, 3000u);
  EXPECT_EQ(second->statistics().samples.SerializeAsString(), first->statistics().samples.SerializeAsString());
}

TEST_F(LogCacheTest, ALogThatChangedIsReadAgain) {
  uint64_t train = 0, valid = 0, train_again = 0, valid_again = 0;
  OpenAgain(&train, &valid);
  WriteBytes(valid_, RandomLog(500, 5));
  EXPECT_THAT(OpenAgain(&train_again, &valid_again), HasSubstr("is rebuilt: its log has changed"));
  EXPECT_EQ(train_again, train);
  EXPECT_NE(valid_again, valid);
  // Other training rows have other ids, which the validation rows are encoded with.
  WriteBytes(train_, RandomLog(3000, 6));
  EXPECT_THAT(OpenAgain(&train_again, &valid_again), HasSubstr("is rebuilt: the training log has changed"));
  EXPECT_NE(train_again, train);
  EXPECT_EQ(OpenAgain(&train, &valid), "");
  EXPECT_EQ(train_again, train);
  EXPECT_EQ(valid_again, valid);
}

TEST_F(LogCacheTest, OnlyWhatRowsDependOnMakesAnotherCache) {
  uint64_t train = 0, valid = 0;
  OpenAgain(&train, &valid);
  const auto caches = [&] {
    size_t n = 0;
    for (const auto& entry : fs::directory_iterator(directory_ / "cache")) n += entry.is_directory() ? 1 : 0;
    return n;
  };
  ASSERT_EQ(caches(), 2u);
  std::string text = kAllFeatures;
  text.replace(text.find("embedding_width: 4"), 18, "embedding_width: 9");
  const ModelSpec wider = SpecFromText(text + "network { blocks { width: 3 } }");
  ASSERT_TRUE(LogCache::Open(wider, Options()).ok());
  EXPECT_EQ(caches(), 2u);
  text.replace(text.find("max_length: 5"), 13, "max_length: 6");
  const ModelSpec longer = SpecFromText(text + "network {}");
  ASSERT_TRUE(LogCache::Open(longer, Options()).ok());
  EXPECT_EQ(caches(), 3u);
  // Side by side, sequences keep their empty positions: other rows.
  const std::string sequences = text + R"(
    features { id: 20 name: "seen" kind: SEQUENCE scope: CONTEXT id_type: STRING embedding_width: 2 max_length: 6 }
    features { id: 21 name: "item2" kind: CATEGORICAL scope: CANDIDATE id_type: INT64 embedding_width: 2 })";
  WriteBytes(train_,
             "label,request,w,user,item,history,tags,price,age,days,hash,seen,item2\n"
             "1,1,1,u,1,1^2,t,1,1,1,1,a^b,1\n0,1,1,u,1,,t,1,1,1,1,a^^b,1\n");
  const LogCache::Options options = Options();
  ASSERT_TRUE(LogCache::Open(SpecFromText(sequences + "network {}"), options).ok());
  EXPECT_EQ(caches(), 4u);
  const ModelSpec aligned =
      SpecFromText(sequences + "network { attention { query: 'item' history: 'history' history: 'seen' } }");
  const absl::StatusOr<LogCache> side_by_side = LogCache::Open(aligned, options);
  ASSERT_TRUE(side_by_side.ok()) << side_by_side.status();
  EXPECT_EQ(caches(), 5u);
  WriteBytes(train_, RandomLog(3000, 1));
  LogCache::Options unweighted = Options();
  unweighted.columns.weight.clear();
  const absl::StatusOr<LogCache> cache = LogCache::Open(spec_, unweighted);
  ASSERT_TRUE(cache.ok());
  EXPECT_EQ(caches(), 6u);
  EXPECT_FALSE(cache->training_rows().columns().weights);
}

TEST_F(LogCacheTest, DamageIsFoundAndRepaired) {
  uint64_t train = 0, valid = 0;
  OpenAgain(&train, &valid);
  const struct {
    std::string cache, file;
    std::function<void(std::string&)> damage;
    std::string message;
  } cases[] = {
      {"train", "rows.bin", [](std::string& b) { b[b.size() / 2] ^= 1; }, "wrong checksum"},
      {"train", "rows.bin", [](std::string& b) { b.resize(b.size() - 8); }, "not what its index tells of"},
      {"train", "rows.bin", [](std::string& b) { b += "12345678"; }, "bytes instead of"},
      {"train", "rows.bin", [](std::string& b) { b.clear(); }, "not what its index tells of"},
      {"train", "index.binpb", [](std::string& b) { b[b.size() / 2] ^= 1; }, "is damaged"},
      {"train", "index.binpb", [](std::string& b) { b.resize(b.size() / 2); }, "is damaged"},
      {"train", "index.binpb", [](std::string& b) { b.resize(5); }, "is too short"},
      {"train", "index.binpb", [](std::string& b) { b[8] = 2; }, "format version 2"},
      {"train", "index.binpb", [](std::string& b) { b[0] = 'X'; }, "no index of a row cache"},
      {"train", "vocabularies.safetensors", [](std::string& b) { b[b.size() - 1] ^= 1; }, "is damaged"},
      {"valid", "rows.bin", [](std::string& b) { b[0] ^= 64; }, "wrong checksum"},
  };
  for (const auto& c : cases) {
    const std::string path = CacheOf(c.cache) + "/" + c.file;
    std::string bytes = ReadBytes(path);
    c.damage(bytes);
    WriteBytes(path, bytes);
    uint64_t train_again = 0, valid_again = 0;
    const std::string told = OpenAgain(&train_again, &valid_again);
    EXPECT_THAT(told, HasSubstr(c.message)) << c.file;
    EXPECT_EQ(std::count(told.begin(), told.end(), '\n'), 1) << told;
    EXPECT_EQ(train_again, train) << c.message;
    EXPECT_EQ(valid_again, valid) << c.message;
  }
  for (const std::string name : {"rows.bin", "index.binpb", "vocabularies.safetensors"}) {
    fs::remove(CacheOf("train") + "/" + name);
    uint64_t train_again = 0, valid_again = 0;
    OpenAgain(&train_again, &valid_again);
    EXPECT_EQ(train_again, train) << name;
  }
}

TEST_F(LogCacheTest, AFullDiskIsOneErrorAndLeavesNothing) {
  // A limit on the size of files stands in for the disk.
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit limit{64 << 10, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  const absl::Status status = LogCache::Open(spec_, Options()).status();
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_THAT(std::string(status.message()), HasSubstr("rows.bin': File too large"));
  EXPECT_TRUE(fs::is_empty(directory_ / "cache"));
}

TEST_F(LogCacheTest, ProcessesMayBuildAtTheSameTime) {
  uint64_t train = 0, valid = 0, again = 0;
  OpenAgain(&train, &valid);
  const std::string index = CacheOf("train") + "/index.binpb";
  fs::remove_all(directory_ / "cache");
  std::vector<pid_t> children;
  for (int i = 0; i < 4; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::freopen("/dev/null", "w", stderr);
      bool ok = true;
      for (int n = 0; n < 5; ++n) {
        const absl::StatusOr<LogCache> cache = LogCache::Open(spec_, Options());
        ok = ok && cache.ok() && cache->Rows("valid", {valid_}).ok() && ReadAll(cache->training_rows()).size() == 3000;
        // One of them spoils it for all.
        if (i == 0) ok = ok && ::truncate(index.c_str(), 30) == 0;
      }
      ::_exit(ok ? 0 : 1);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  }
  OpenAgain(&again, &valid);
  EXPECT_EQ(OpenAgain(&again, &valid), "");
  EXPECT_EQ(train, again);
  EXPECT_THAT(directory_.Names(), Not(Contains(HasSubstr(".tmp."))));
}

TEST_F(LogCacheTest, ALogThatIsBeingWrittenIsNotCached) {
  WriteBytes(train_, RandomLog(30'000, 1));
  std::atomic<bool> stop = false;
  std::thread writer([&] {
    for (long n = 0; !stop; ++n) {
      const timespec times[2] = {{1'000'000 + n, 0}, {1'000'000 + n, 0}};
      ::utimensat(AT_FDCWD, train_.c_str(), times, 0);
    }
  });
  const absl::Status status = LogCache::Open(spec_, Options()).status();
  stop = true;
  writer.join();
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("changed while it was read"));
  EXPECT_TRUE(fs::is_empty(directory_ / "cache"));
}

TEST_F(LogCacheTest, LeftoversOfAKilledProcessGoAway) {
  uint64_t train = 0, valid = 0;
  OpenAgain(&train, &valid);
  const std::string old = CacheOf("train") + ".tmp.1", young = CacheOf("train") + ".tmp.2";
  for (const std::string& path : {old, young}) {
    fs::create_directory(path);
    WriteBytes(path + "/rows.bin", "x");
  }
  const auto yesterday = fs::file_time_type::clock::now() - std::chrono::hours(24);
  fs::last_write_time(old + "/rows.bin", yesterday);
  fs::last_write_time(old, yesterday);
  WriteBytes(train_, RandomLog(100, 9));
  OpenAgain(&train, &valid);
  EXPECT_FALSE(fs::exists(old));
  EXPECT_TRUE(fs::exists(young));
}

TEST_F(LogCacheTest, RefusesWhatCannotBeTrainedOn) {
  const std::string good = "1,1,1,u,1,1,t,1,1,1,1\n";
  const struct {
    std::string log, message;
  } cases[] = {
      {good + "1,1,-0.5,u,1,1,t,1,1,1,1\n", "train.csv:3: column 'w': '-0.5' is not a weight; a finite number >= 0 is"},
      {good + good + "1,1,nan,u,1,1,t,1,1,1,1\n", "train.csv:4: column 'w': 'nan'"},
      {good + "1,1,inf,u,1,1,t,1,1,1,1\n", "train.csv:3: column 'w': 'inf'"},
      {good + "1,1,,u,1,1,t,1,1,1,1\n", "train.csv:3: column 'w': ''"},
      {good + "0.5,1,1,u,1,1,t,1,1,1,1\n", "train.csv:3: column 'label': '0.5'"},
      {good + ",1,1,u,1,1,t,1,1,1,1\n", "train.csv:3: column 'label': ''"},
      {good + "-1,1,1,u,1,1,t,1,1,1,1\n", "train.csv:3: column 'label': '-1'"},
      {good + "1,1,1,u,1,1,t,1e39,1,1,1\n", "train.csv:3: column 'price': '1e39'"},
      {good + "1,1,1,u,1,1,t,inf,1,1,1\n", "train.csv:3: column 'price': 'inf'"},
      {"", "has no rows"},
  };
  for (const auto& c : cases) {
    WriteBytes(train_, kHeader + c.log);
    testing::internal::CaptureStderr();
    const absl::Status status = LogCache::Open(spec_, Options()).status();
    testing::internal::GetCapturedStderr();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
    EXPECT_TRUE(fs::is_empty(directory_ / "cache"));
  }
  fs::remove(train_);
  ASSERT_EQ(::mkfifo(train_.c_str(), 0600), 0);
  EXPECT_THAT(std::string(LogCache::Open(spec_, Options()).status().message()), HasSubstr("not a regular file"));
}

TEST_F(LogCacheTest, ANumberThatItsTransformLiftsBeyondFloatIsRefusedWithItsPlace) {
  // Around two huge means of opposite sign the distance from the mean overflows.
  std::string log = kHeader;
  for (int r = 0; r < 40; ++r) log += "1,1,1,u,1,1,t,3e38,1,1,1\n";
  WriteBytes(train_, log);
  WriteBytes(valid_, std::string(kHeader) + "1,1,1,u,1,1,t,-3e38,1,1,1\n");
  const absl::StatusOr<LogCache> cache = LogCache::Open(spec_, Options());
  ASSERT_TRUE(cache.ok()) << cache.status();
  const absl::Status status = cache->Rows("valid", {valid_}).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("valid.csv:2, or a row before it: feature 'price'"));
}

}  // namespace
}  // namespace hilomoe
