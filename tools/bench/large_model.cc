#include "tools/bench/large_model.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/encoded_batch.h"
#include "model/file_io.h"
#include "model/model_file.h"
#include "model/status_macros.h"
#include "tools/bench/bench_model.h"

namespace hilomoe::bench {
namespace {

constexpr int kFeatures = 16;
constexpr uint32_t kWidth = 16;
constexpr size_t kCandidates = 64;
// The embedding and, at 70 % of five places, the id's share of a bucket of 64 bytes.
constexpr double kBytesPerId = kWidth * sizeof(float) + 64 / 3.5;

v1::ModelConfig MakeConfig() {
  v1::ModelConfig config;
  for (int i = 0; i < kFeatures; ++i) {
    v1::Feature* feature = config.add_features();
    feature->set_id(static_cast<uint32_t>(i + 1));
    feature->set_name(absl::StrCat("id", i));
    feature->set_kind(v1::Feature::CATEGORICAL);
    feature->set_scope(v1::Feature::CANDIDATE);
    feature->set_id_type(v1::Feature::INT64);
    feature->set_embedding_width(kWidth);
  }
  config.mutable_network()->add_blocks()->set_width(64);
  return config;
}

}  // namespace

absl::StatusOr<std::unique_ptr<LargeModel>> LargeModel::Write(const std::string& scratch, size_t bytes) {
  const uint32_t ids = static_cast<uint32_t>(static_cast<double>(bytes) / (kFeatures * kBytesPerId));
  std::string directory = scratch + "/hilomoe_bench_XXXXXX";
  if (::mkdtemp(directory.data()) == nullptr) return SystemError(errno, "cannot create directory", directory);
  auto model = std::unique_ptr<LargeModel>(new LargeModel(directory, ids));
  HILOMOE_RETURN_IF_ERROR(model->WriteFile());
  return model;
}

LargeModel::~LargeModel() {
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

absl::Status LargeModel::WriteFile() const {
  ModelFileContents contents;
  *contents.header.mutable_config() = MakeConfig();
  HILOMOE_ASSIGN_OR_RETURN(const ModelSpec spec, ModelSpec::Create(contents.header.config()));
  contents.table_rows.assign(kFeatures, kReservedRows + ids_);
  const TensorRegistry registry = TensorRegistry::ForServing(spec, contents.table_rows);
  std::mt19937 engine(7);
  std::vector<float> numbers(size_t{kReservedRows + ids_} * kWidth);
  for (float& number : numbers) number = static_cast<float>(engine()) * 0x1p-32F - 0.5F;
  std::vector<std::vector<float>> dense;
  dense.reserve(registry.tensors().size());
  for (size_t i = 0; i < registry.tensors().size(); ++i) {
    const TensorSpec& tensor = registry.tensors()[i];
    if (i < registry.gathered()) {
      contents.tensors.emplace_back(numbers);
      continue;
    }
    std::vector<float>& values = dense.emplace_back(tensor.size);
    for (float& value : values) value = (static_cast<float>(engine()) * 0x1p-32F - 0.5F) / 8;
    contents.tensors.emplace_back(values);
  }
  for (int feature = 0; feature < kFeatures; ++feature) {
    VocabularyIds& vocabulary = contents.vocabularies.emplace_back();
    vocabulary.int64s.reserve(ids_);
    for (uint32_t rank = 0; rank < ids_; ++rank) vocabulary.int64s.push_back(IdOf(feature, rank));
  }
  return WriteModelFile(path(), contents);
}

absl::StatusOr<std::vector<float>> LargeModel::Scores(const Predictor& predictor) const {
  std::mt19937 engine(11);
  std::vector<std::vector<int64_t>> ids;
  std::vector<ColumnView> columns;
  for (int feature = 0; feature < kFeatures; ++feature) {
    std::vector<int64_t>& column = ids.emplace_back();
    for (size_t r = 0; r < kCandidates; ++r) column.push_back(IdOf(feature, static_cast<uint32_t>(engine() % ids_)));
    ColumnView view;
    view.feature_id = static_cast<uint32_t>(feature + 1);
    view.ids = column;
    columns.push_back(view);
  }
  Workspace workspace(predictor);
  std::vector<float> scores(kCandidates);
  HILOMOE_RETURN_IF_ERROR(predictor.Predict({kCandidates, {}, columns}, &workspace, absl::MakeSpan(scores)));
  uint64_t unknown = 0;
  for (const uint64_t of_feature : workspace.counts.out_of_vocabulary) unknown += of_feature;
  if (unknown > 0) return absl::DataLossError(absl::StrCat(unknown, " ids of the vocabulary were not found"));
  return scores;
}

}  // namespace hilomoe::bench
