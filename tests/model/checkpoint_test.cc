// A checkpoint is read back as it was written, and a damaged one is refused.
#include "model/checkpoint.h"

#include <cmath>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"
#include "model/safetensors.h"
#include "tests/model/random_model.h"
#include "tests/model/test_files.h"

namespace hilomoe {
namespace {

using google::protobuf::util::MessageDifferencer;
using testing::HasSubstr;
using testing::UnorderedElementsAre;

constexpr char kBlocks[] = "network { blocks { width: 4 dropout: 0.1 experts { layers: 2 experts_per_layer: 3 } } }";

Checkpoint MakeCheckpoint() {
  Checkpoint checkpoint;
  *checkpoint.config.mutable_model() = ModelConfigFromText(absl::StrCat(kAllFeatures, kBlocks));
  checkpoint.config.mutable_data()->add_train("a\"b\n.csv");
  checkpoint.config.mutable_optimizer()->set_beta1(0.1F);
  const ModelSpec spec = *ModelSpec::Create(checkpoint.config.model());
  for (const TableSpec& table : spec.tables()) {
    VocabularyIds& ids = checkpoint.vocabularies.emplace_back();
    if (!table.has_vocabulary()) continue;
    if (table.id_type == v1::Feature::INT64) {
      ids.int64s = {INT64_MAX, 0, INT64_MIN, -7};
    } else {
      ids.strings = {"a", std::string("b\0c", 3), std::string(1000, 'x')};
    }
  }
  const std::vector<uint32_t> rows = checkpoint.TableRows(spec);
  const TensorRegistry registry = TensorRegistry::ForTraining(spec, rows);
  for (const double weight : RandomWeights(spec, registry, 1)) checkpoint.weights.push_back(static_cast<float>(weight));
  checkpoint.metrics = {{"valid.auc", 0.1 + 0.2}, {"test.logloss", 1e-300}};
  auto& block = checkpoint.utilisation.emplace_back();
  block.set_block(0);
  auto* layer = block.add_layers();
  for (const float share : {0.1F, 0.7F, 0.2F}) layer->add_expert(share);
  layer->set_entropy(0.73F);
  checkpoint.samples.set_num_candidates(2);
  checkpoint.samples.add_candidates()->add_ids(3);
  return checkpoint;
}

void ExpectEqual(const Checkpoint& a, const Checkpoint& b) {
  EXPECT_TRUE(MessageDifferencer::Equals(a.config, b.config));
  EXPECT_EQ(a.weights, b.weights);
  EXPECT_EQ(a.metrics, b.metrics);
  EXPECT_TRUE(MessageDifferencer::Equals(a.samples, b.samples));
  ASSERT_EQ(a.vocabularies.size(), b.vocabularies.size());
  for (size_t i = 0; i < a.vocabularies.size(); ++i) {
    EXPECT_EQ(a.vocabularies[i].int64s, b.vocabularies[i].int64s);
    EXPECT_EQ(a.vocabularies[i].strings, b.vocabularies[i].strings);
  }
  ASSERT_EQ(a.utilisation.size(), b.utilisation.size());
  for (size_t i = 0; i < a.utilisation.size(); ++i) {
    EXPECT_TRUE(MessageDifferencer::Equals(a.utilisation[i], b.utilisation[i]));
  }
}

class CheckpointTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(WriteCheckpoint(path_, MakeCheckpoint()).ok()); }
  absl::Status Read() { return ReadCheckpoint(path_).status(); }
  std::string File(const std::string& name) const { return path_ + "/" + name; }

  const TestDirectory directory_;
  const std::string path_ = directory_ / "checkpoint";
};

TEST_F(CheckpointTest, RoundTrip) {
  const auto checkpoint = ReadCheckpoint(path_);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ExpectEqual(*checkpoint, MakeCheckpoint());
  EXPECT_THAT(directory_.Names(),
              UnorderedElementsAre("checkpoint", "checkpoint/config.textproto", "checkpoint/weights.safetensors",
                                   "checkpoint/vocabularies.safetensors", "checkpoint/metrics.json",
                                   "checkpoint/samples.binpb"));
}

TEST_F(CheckpointTest, ReplacesAnEarlierOne) {
  Checkpoint other = MakeCheckpoint();
  other.weights[0] = 42;
  ASSERT_TRUE(WriteCheckpoint(path_, other).ok());
  ExpectEqual(*ReadCheckpoint(path_), other);
  EXPECT_EQ(directory_.Names().size(), 6);
}

TEST_F(CheckpointTest, CountsRows) {
  const Checkpoint checkpoint = MakeCheckpoint();
  const ModelSpec spec = *ModelSpec::Create(checkpoint.config.model());
  // user: 3 strings, item: 4 ids, tags: 3 strings, days: 4 buckets, hash: 6 buckets.
  EXPECT_EQ(checkpoint.TableRows(spec), (std::vector<uint32_t>{5, 6, 5, 6, 8}));
}

TEST_F(CheckpointTest, KeepsMetricsThatAreNoNumbers) {
  Checkpoint checkpoint = MakeCheckpoint();
  checkpoint.metrics = {{"nan", std::nan("")}, {"infinite", std::numeric_limits<double>::infinity()}, {"one", 1}};
  checkpoint.metrics["not utf-8: \xff"] = 2;
  checkpoint.utilisation[0].mutable_layers(0)->set_entropy(std::nanf(""));
  ASSERT_TRUE(WriteCheckpoint(path_, checkpoint).ok());
  const auto read = ReadCheckpoint(path_);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_TRUE(std::isnan(read->metrics.at("nan")));
  EXPECT_FALSE(std::isfinite(read->metrics.at("infinite")));
  EXPECT_EQ(read->metrics.at("one"), 1);
  EXPECT_EQ(read->metrics.size(), 4);
}

TEST_F(CheckpointTest, RefusesWithoutAnyOfItsFiles) {
  for (const char* name :
       {"config.textproto", "weights.safetensors", "vocabularies.safetensors", "metrics.json", "samples.binpb"}) {
    std::filesystem::rename(File(name), File("away"));
    const absl::Status status = Read();
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << name;
    EXPECT_THAT(std::string(status.message()), HasSubstr(name));
    std::filesystem::rename(File("away"), File(name));
  }
  EXPECT_TRUE(Read().ok());
}

TEST_F(CheckpointTest, RefusesEveryTruncation) {
  // A text and a protobuf may end early and still be sound; they are only not to crash.
  for (const char* name :
       {"weights.safetensors", "vocabularies.safetensors", "metrics.json", "config.textproto", "samples.binpb"}) {
    const std::string bytes = ReadBytes(File(name));
    const bool all = std::string(name) != "config.textproto" && std::string(name) != "samples.binpb";
    for (size_t size = bytes.size() - 1; size-- > 0;) {
      std::filesystem::resize_file(File(name), size);
      const absl::Status status = Read();
      ASSERT_TRUE(!all || !status.ok()) << name << " " << size;
    }
    WriteBytes(File(name), bytes);
  }
  EXPECT_TRUE(Read().ok());
}

TEST_F(CheckpointTest, NamesLineAndFieldOfTheConfig) {
  WriteBytes(File("config.textproto"), "model {\n  features {\n    id: 1\n    name: ''\n  }\n}\n");
  EXPECT_EQ(Read().message(), File("config.textproto") + ":4: model.features[0].name: every feature needs a name");
  WriteBytes(File("config.textproto"), "");
  EXPECT_THAT(std::string(Read().message()), HasSubstr("model.features"));
}

TEST_F(CheckpointTest, RefusesWeightsOfAnotherConfig) {
  Checkpoint checkpoint = MakeCheckpoint();
  checkpoint.config.mutable_model()->mutable_network()->mutable_blocks(0)->set_width(5);
  std::string text;
  google::protobuf::TextFormat::PrintToString(checkpoint.config, &text);
  WriteBytes(File("config.textproto"), text);
  const absl::Status status = Read();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("'blocks.0.base.weight' is F32 [4, 21]"));
}

// The config asks for 2^30 rows of 16384 numbers: an error, not an attempt to allocate them.
TEST_F(CheckpointTest, RefusesATableThatTheFileDoesNotHold) {
  Checkpoint checkpoint = MakeCheckpoint();
  v1::Feature* hash = checkpoint.config.mutable_model()->mutable_features(7);
  hash->set_embedding_width(16384);
  hash->mutable_vocabulary()->set_hash_buckets(1 << 30);
  std::string text;
  google::protobuf::TextFormat::PrintToString(checkpoint.config, &text);
  WriteBytes(File("config.textproto"), text);
  EXPECT_THAT(std::string(Read().message()), HasSubstr("'embedding.hash.weight' is F32 [8, 2]"));
}

TEST_F(CheckpointTest, RefusesUnsoundVocabularies) {
  const auto write = [&](const std::string& user_bytes, const std::vector<int64_t>& user_ends,
                         const std::vector<int64_t>& items) {
    const std::string tags = "t";
    const std::vector<int64_t> tag_ends = {1};
    const absl::Status status =
        WriteSafetensors(File("vocabularies.safetensors"),
                         {{"user.bytes", "U8", {user_bytes.size()}, user_bytes},
                          MakeEntry("user.ends", "I64", {user_ends.size()}, absl::MakeConstSpan(user_ends)),
                          {"tags.bytes", "U8", {1}, tags},
                          MakeEntry("tags.ends", "I64", {1}, absl::MakeConstSpan(tag_ends)),
                          MakeEntry("item.ids", "I64", {items.size()}, absl::MakeConstSpan(items))});
    ASSERT_TRUE(status.ok());
  };
  const ModelSpec spec = *ModelSpec::Create(MakeCheckpoint().config.model());
  const auto read = [&] { return ReadVocabularies(File("vocabularies.safetensors"), spec); };
  write("abc", {1, 3}, {1, 2});
  const auto sound = read();
  ASSERT_TRUE(sound.ok()) << sound.status();
  EXPECT_EQ((*sound)[0].strings, (std::vector<std::string>{"a", "bc"}));
  struct {
    std::string bytes;
    std::vector<int64_t> ends, items;
    std::string error;
  } const cases[] = {
      {"abc", {2, 1}, {}, "does not ascend"},        {"abc", {-1, 3}, {}, "does not ascend"},
      {"abc", {1, 4}, {}, "does not ascend"},        {"abc", {1, INT64_MAX}, {}, "does not ascend"},
      {"abc", {1, 2}, {}, "does not end with"},      {"abc", {}, {}, "does not end with"},
      {"aba", {1, 2, 3}, {}, "'user' stands twice"}, {"", {0, 0}, {}, "'user' stands twice"},
      {"a", {1}, {4, 5, 4}, "'item' stands twice"},
  };
  for (const auto& c : cases) {
    write(c.bytes, c.ends, c.items);
    EXPECT_EQ(read().status().code(), absl::StatusCode::kDataLoss) << c.error;
    EXPECT_THAT(std::string(read().status().message()), HasSubstr(c.error));
  }
}

TEST_F(CheckpointTest, RefusesMetricsOfAnotherForm) {
  for (const char* text : {"", "null", "{}", "[1]", R"({"metrics":{"a":"b"},"utilisation":[]})",
                           R"({"metrics":{},"utilisation":[3]})", R"({"metrics":{},"utilisation":[{"block":"x"}]})",
                           R"({"metrics":{},"utilisation":[{"block":0,"layers":[{"expert":["a"],"entropy":0}]}]})",
                           R"({"metrics":{},"utilisation":[{"block":0,"layers":[{"expert":[]}]}]})"}) {
    WriteBytes(File("metrics.json"), text);
    const absl::Status status = Read();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr("metrics.json")) << text;
  }
}

TEST_F(CheckpointTest, NothingIsWrittenForAConfigThatIsWrong) {
  Checkpoint checkpoint = MakeCheckpoint();
  checkpoint.config.mutable_model()->clear_features();
  EXPECT_FALSE(WriteCheckpoint(directory_ / "new", checkpoint).ok());
  EXPECT_EQ(directory_.Names().size(), 6);
}

}  // namespace
}  // namespace hilomoe
