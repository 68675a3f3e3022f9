#include "test_model.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <random>

#include "google/protobuf/text_format.h"
#include "model/encoded_batch.h"
#include "model/model_file.h"
#include "runtime/column_view.h"

namespace hilomoe {
namespace {

v1::ModelConfig Parse(const std::string& text) {
  v1::ModelConfig config;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &config));
  return config;
}

// Rows of a table whose vocabulary, if it has one, is `ids`.
uint32_t TableRows(const TableSpec& table, const VocabularyIds& ids) {
  const size_t rows = table.has_vocabulary() ? ids.size() : table.hash_buckets + table.buckets;
  return static_cast<uint32_t>(rows) + kReservedRows;
}

}  // namespace

v1::ModelConfig TestModelConfig() {
  return Parse(R"(
    features { id: 1 name: "user" kind: CATEGORICAL scope: CONTEXT id_type: INT64 embedding_width: 8 required: true }
    features { id: 2 name: "age" kind: NUMERIC scope: CONTEXT embedding_width: 0 numeric { missing_indicator: true } }
    features { id: 3 name: "history" kind: SEQUENCE scope: CONTEXT id_type: INT64 embedding_width: 8
               share_embedding: "item" max_length: 10 }
    features { id: 4 name: "item" kind: CATEGORICAL scope: CANDIDATE id_type: INT64 embedding_width: 8 }
    features { id: 5 name: "tags" kind: BAG scope: CANDIDATE id_type: STRING embedding_width: 4
               vocabulary { hash_buckets: 50 } }
    features { id: 6 name: "price" kind: NUMERIC scope: CANDIDATE embedding_width: 4 numeric { transform: LOG1P } }
    network {
      blocks { width: 32 experts { layers: 2 experts_per_layer: 4 } }
      blocks { width: 16 experts { layers: 3 experts_per_layer: 8 top_k: 2 } }
    })");
}

v1::ModelConfig SlowModelConfig() {
  return Parse(R"(
    features { id: 4 name: "item" kind: CATEGORICAL scope: CANDIDATE id_type: INT64 embedding_width: 256 }
    network { blocks { width: 512 } blocks { width: 512 } blocks { width: 512 } })");
}

std::string WriteTestModel(const std::string& root, const TestModelOptions& options) {
  std::mt19937 random(options.seed);
  std::uniform_real_distribution<float> uniform(-0.5F, 0.5F);

  ModelFileContents contents;
  *contents.header.mutable_config() = options.config;
  auto* provenance = contents.header.mutable_provenance();
  provenance->set_created("2025-01-02T03:04:05Z");
  provenance->set_created_by("test");
  provenance->set_label("click");
  if (options.wrong_golden) {
    v1::GoldenRequest* golden = contents.header.add_golden();
    golden->set_num_candidates(1);
    v1::Column* user = golden->add_context();
    user->set_feature("user");
    user->add_ids(1);
    golden->add_scores(2);  // no probability is
  }

  const absl::StatusOr<ModelSpec> spec = ModelSpec::Create(options.config);
  EXPECT_TRUE(spec.ok()) << spec.status();
  for (size_t b = 0; b < spec->blocks().size(); ++b) {
    const BlockSpec& block = spec->blocks()[b];
    if (block.layers == 0) continue;
    auto* utilisation = contents.header.add_utilisation();
    utilisation->set_block(static_cast<uint32_t>(b));
    for (size_t l = 0; l < block.layers; ++l) {
      auto* layer = utilisation->add_layers();
      layer->set_entropy(kTestEntropy);
      for (size_t i = 0; i < block.experts; ++i) layer->add_expert(1 / static_cast<float>(block.experts));
    }
  }
  for (const TableSpec& table : spec->tables()) {
    VocabularyIds& ids = contents.vocabularies.emplace_back();
    const bool items = table.feature == "item";
    for (int64_t id = items ? 100 : 1; table.has_vocabulary() && id < (items ? 140 : 21); ++id)
      ids.int64s.push_back(id);
    contents.table_rows.push_back(TableRows(table, ids));
  }
  const TensorRegistry registry = TensorRegistry::ForServing(*spec, contents.table_rows);
  std::vector<std::vector<float>> tensors;
  for (const TensorSpec& tensor : registry.tensors()) {
    std::vector<float>& values = tensors.emplace_back(tensor.size);
    for (float& value : values) value = uniform(random);
  }
  for (const std::vector<float>& values : tensors) contents.tensors.push_back(values);

  const std::filesystem::path directory = std::filesystem::path(root) / options.model / std::to_string(options.version);
  std::filesystem::create_directories(directory);
  const std::string path = (directory / "model.hilomoe").string();
  const absl::Status written = WriteModelFile(path, contents);
  EXPECT_TRUE(written.ok()) << written;
  return path;
}

v1::ScoreRequest MakeTestRequest(uint32_t num_candidates, uint32_t seed) {
  std::mt19937 random(seed);
  const auto draw = [&random](int least, int most) { return std::uniform_int_distribution<int>(least, most)(random); };
  v1::ScoreRequest request;
  request.set_num_candidates(num_candidates);

  v1::Column* user = request.add_context();
  user->set_feature_id(1);
  user->add_ids(draw(1, 25));  // above 20: unknown
  v1::Column* age = request.add_context();
  age->set_feature("age");
  age->add_row_lengths(seed % 2);
  if (seed % 2 == 1) age->add_numbers(0.5F);
  v1::Column* history = request.add_context();
  history->set_feature("history");
  history->add_row_lengths(static_cast<uint32_t>(draw(0, 12)));
  for (uint32_t i = 0; i < history->row_lengths(0); ++i) history->add_ids(draw(100, 150));

  v1::Column* item = request.add_candidates();
  item->set_feature_id(4);
  v1::Column* tags = request.add_candidates();
  tags->set_feature("tags");
  v1::Column* price = request.add_candidates();
  price->set_feature_id(6);
  for (uint32_t r = 0; r < num_candidates; ++r) {
    item->add_ids(draw(100, 150));
    const int length = draw(0, 3);
    tags->add_row_lengths(static_cast<uint32_t>(length));
    for (int i = 0; i < length; ++i) {
      const std::string tag = "tag" + std::to_string(draw(0, 99));
      tags->mutable_strings()->append(tag);
      tags->add_string_bytes(static_cast<uint32_t>(tag.size()));
    }
    price->add_numbers(static_cast<float>(draw(0, 1000)) / 8);
  }
  return request;
}

v1::ScoreRequest MakeSlowRequest(uint32_t num_candidates) {
  v1::ScoreRequest request;
  request.set_num_candidates(num_candidates);
  v1::Column* item = request.add_candidates();
  item->set_feature_id(4);
  for (uint32_t r = 0; r < num_candidates; ++r) item->add_ids(100 + r % 50);
  return request;
}

std::vector<float> DirectScores(const std::string& path, const v1::ScoreRequest& request) {
  absl::StatusOr<ModelFile> file = ModelFile::Open(path);
  EXPECT_TRUE(file.ok()) << file.status();
  const absl::StatusOr<std::unique_ptr<Predictor>> predictor = Predictor::Create(*std::move(file));
  EXPECT_TRUE(predictor.ok()) << predictor.status();
  Workspace workspace(**predictor);
  std::vector<ColumnView> context, candidates;
  AppendColumnViews(request.context(), &context);
  AppendColumnViews(request.candidates(), &candidates);
  std::vector<float> scores(request.num_candidates());
  const absl::Status status =
      (*predictor)->Predict({request.num_candidates(), context, candidates}, &workspace, absl::MakeSpan(scores));
  EXPECT_TRUE(status.ok()) << status;
  return scores;
}

TemporaryDirectory::TemporaryDirectory() {
  std::string pattern = (std::filesystem::temp_directory_path() / "hilomoe_test.XXXXXX").string();
  EXPECT_NE(mkdtemp(pattern.data()), nullptr);
  path_ = pattern;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace hilomoe
