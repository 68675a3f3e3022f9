#include "tools/bench/bench_model.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/text_format.h"
#include "model/file_io.h"
#include "model/model_file.h"
#include "model/status_macros.h"
#include "tools/convert/fold.h"

namespace hilomoe::bench {
namespace {

// The finaliser of splitmix64: a bijection.
uint64_t Mix(uint64_t x) {
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
  x = (x ^ x >> 27) * 0x94d049bb133111eb;
  return x ^ x >> 31;
}

v1::ModelConfig MakeConfig(const BenchModelOptions& options) {
  v1::ModelConfig config;
  const auto add = [&config](std::string name, v1::Feature::Kind kind, bool context) {
    v1::Feature* feature = config.add_features();
    feature->set_id(static_cast<uint32_t>(config.features_size()));
    feature->set_name(std::move(name));
    feature->set_kind(kind);
    feature->set_scope(context ? v1::Feature::CONTEXT : v1::Feature::CANDIDATE);
    feature->set_embedding_width(16);
    return feature;
  };
  for (int i = 0; i < kNumericFeatures; ++i) add(absl::StrCat("I", i + 1), v1::Feature::NUMERIC, true);
  for (int i = 0; i < kCategoricalFeatures; ++i) {
    add(absl::StrCat("C", i + 1), v1::Feature::CATEGORICAL, i < kCategoricalFeatures / 2)
        ->set_id_type(v1::Feature::INT64);
  }
  for (int i = 0; i < 3; ++i) {
    v1::Block* block = config.mutable_network()->add_blocks();
    block->set_width(400);
    block->mutable_experts()->set_layers(static_cast<uint32_t>(options.layers));
    block->mutable_experts()->set_experts_per_layer(static_cast<uint32_t>(options.experts));
    block->mutable_experts()->set_top_k(static_cast<uint32_t>(options.top_k));
  }
  return config;
}

// Of a size that keeps activations and logits around 1.
std::vector<float> RandomWeights(const ModelSpec& spec, const TensorRegistry& registry, uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<float> normal;
  std::vector<float> weights(registry.size());
  float* const tables = weights.data();
  const size_t in_tables = registry.tensors()[registry.gathered()].offset;
  for (size_t i = 0; i < in_tables; ++i) {
    const float uniform = static_cast<float>(Mix(seed << 40 ^ i) >> 40) * 0x1p-24F;  // in [0, 1)
    tables[i] = (uniform - 0.5F) * std::sqrt(12.0F);
  }
  for (size_t t = registry.gathered(); t < registry.tensors().size(); ++t) {
    const TensorSpec& tensor = registry.tensors()[t];
    const bool product = tensor.shape.size() > 1 || tensor.name == "head.weight";
    const size_t fan_in = product ? tensor.shape.back() : 1;
    const float scale = 1 / std::sqrt(static_cast<float>(fan_in));
    for (size_t i = 0; i < tensor.size; ++i) weights[tensor.offset + i] = scale * normal(engine);
    const bool positive = absl::EndsWith(tensor.name, "norm.weight") || absl::EndsWith(tensor.name, "running_var");
    for (size_t i = 0; i < tensor.size && positive; ++i) {
      weights[tensor.offset + i] = 0.5F + std::fabs(weights[tensor.offset + i]);
    }
  }
  // x/|x| times a random row of norm 1 has deviation 1/sqrt(D).
  const ModelTensors<float> tensors = registry.Bind(spec, weights.data());
  for (size_t b = 0; b < spec.blocks().size(); ++b) {
    const BlockSpec& block = spec.blocks()[b];
    if (block.layers == 0) continue;
    tensors.blocks[b].alpha[0] = 1;
    std::fill_n(tensors.blocks[b].tau, block.layers, std::sqrt(static_cast<float>(block.input)));
  }
  return weights;
}

// Adds the variance of storing weights: of W0 and V row by row; of U behind batch norm, which is folded into it.
void AddStorageErrors(const ModelSpec& spec, Precision precision, const ModelTensors<Rounded>& tensors) {
  for (size_t b = 0; b < spec.blocks().size(); ++b) {
    const BlockSpec& block = spec.blocks()[b];
    const BlockTensors<Rounded>& of = tensors.blocks[b];
    const size_t D = block.input, O = block.width;
    for (size_t o = 0; o < O + block.stack(); ++o) AddRoundingError(precision, of.base_weight + o * D, D);
    for (size_t i = 0; i < block.stack(); ++i) {
      std::vector<Rounded> folded;
      std::vector<double> factor;
      for (size_t o = 0; o < O; ++o) {
        factor.push_back(of.gamma[o].value / std::sqrt(of.running_variance[o].value + kBatchNormEpsilon));
        folded.emplace_back(factor[o] * of.u[i * O + o].value);
      }
      AddRoundingError(precision, folded.data(), O);
      for (size_t o = 0; o < O; ++o) of.u[i * O + o].variance += folded[o].variance / (factor[o] * factor[o]);
    }
  }
}

}  // namespace

int64_t IdOf(int feature, uint32_t rank) {
  return static_cast<int64_t>(Mix(static_cast<uint64_t>(feature + 1) << 32 | rank));
}

// The config is right whatever the options.
ModelSpec BenchSpec(const BenchModelOptions& options) { return *ModelSpec::Create(MakeConfig(options)); }

Flops BenchFlops(const BenchModelOptions& options) { return CountFlops(BenchSpec(options)); }

double BenchDenseBytes(const BenchModelOptions& options) {
  const ModelSpec spec = BenchSpec(options);
  const std::vector<uint32_t> no_rows(spec.tables().size(), 0);
  const TensorRegistry registry = TensorRegistry::ForServing(spec, no_rows);
  double bytes = 0;
  for (const TensorSpec& tensor : registry.tensors()) {
    // Top-k adds rows of U as floats.
    const bool packed =
        tensor.storage == StorageGroup::kDense || (tensor.storage == StorageGroup::kExperts && options.top_k == 0);
    bytes += static_cast<double>(tensor.size) * PackedBytes(packed ? options.precision : Precision::kFloat32);
  }
  return bytes;
}

double PackedBytes(Precision precision) {
  return 4.0 / kernels::ColumnsPerCell(static_cast<kernels::Precision>(precision));
}

absl::StatusOr<std::unique_ptr<BenchModel>> BenchModel::Create(const BenchModelOptions& options) {
  auto model = std::unique_ptr<BenchModel>(new BenchModel(options));
  std::string pattern = (std::filesystem::temp_directory_path() / "hilomoe_bench_XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) return SystemError(errno, "cannot create directory", pattern);
  model->directory_ = pattern;
  HILOMOE_RETURN_IF_ERROR(model->Write(model->path()));
  return model;
}

absl::Status WriteBenchModel(const BenchModelOptions& options, const std::string& path) {
  return BenchModel(options).Write(path);
}

absl::Status BenchModel::Write(const std::string& path) {
  const std::vector<uint32_t> table_rows(spec_.tables().size(), kReservedRows + options_.ids);
  const TensorRegistry training = TensorRegistry::ForTraining(spec_, table_rows);
  const TensorRegistry serving = TensorRegistry::ForServing(spec_, table_rows);
  std::vector<float> weights = RandomWeights(spec_, training, options_.seed);
  const std::vector<std::vector<float>> tensors = FoldTensors(spec_, training, serving, weights);

  const size_t in_tables = training.tensors()[training.gathered()].offset;
  dense_.assign(weights.begin() + static_cast<std::ptrdiff_t>(in_tables), weights.end());
  weights = {};
  const TensorRegistry no_rows = TensorRegistry::ForTraining(spec_, std::vector<uint32_t>(spec_.tables().size(), 0));
  reference_tensors_ = no_rows.Bind<const Rounded>(spec_, dense_.data());
  AddStorageErrors(spec_, options_.precision, no_rows.Bind<Rounded>(spec_, dense_.data()));

  ModelFileContents contents;
  *contents.header.mutable_config() = spec_.config();
  contents.table_rows = table_rows;
  contents.precision = {options_.precision, options_.precision, options_.precision};
  for (const std::vector<float>& tensor : tensors) contents.tensors.emplace_back(tensor);
  for (int feature = 0; feature < kCategoricalFeatures; ++feature) {
    VocabularyIds& ids = contents.vocabularies.emplace_back();
    for (uint32_t rank = 0; rank < options_.ids; ++rank) ids.int64s.push_back(IdOf(feature, rank));
  }
  return WriteModelFile(path, contents);
}

BenchModel::~BenchModel() {
  std::error_code ignored;
  if (!directory_.empty()) std::filesystem::remove_all(directory_, ignored);
}

absl::StatusOr<const Predictor*> BenchModel::Open(kernels::InstructionSet limit) {
  const std::lock_guard lock(mutex_);
  std::unique_ptr<Predictor>& predictor = predictors_[kernels::SelectKernels(limit).instruction_set];
  if (predictor == nullptr) {
    HILOMOE_ASSIGN_OR_RETURN(ModelFile file, ModelFile::Open(path()));
    HILOMOE_ASSIGN_OR_RETURN(predictor, Predictor::Create(std::move(file), {.instruction_set = limit}));
  }
  return predictor.get();
}

ReferenceOutput<Rounded> BenchModel::Reference(const EncodedBatch& batch, absl::Span<const size_t> rows) {
  // A table of the few rows that are asked for, in an arena of their own.
  EncodedBatch few;
  few.candidate_rows = rows.size();
  few.context_rows = batch.context_rows == 1 ? 1 : rows.size();
  few.features.resize(spec_.features().size());
  const FeatureTensors<const StoredMatrix>& served = (*Open())->file().matrices().features;
  std::vector<Rounded> arena;
  std::vector<uint32_t> table_rows;
  for (size_t t = 0; t < spec_.tables().size(); ++t) {
    const TableSpec& table = spec_.tables()[t];
    const size_t f = static_cast<size_t>(table.owner);
    const bool shared = spec_.features()[f].is_context() && batch.context_rows == 1;
    const size_t n = shared ? 1 : rows.size();
    for (size_t r = 0; r < n; ++r) {
      std::vector<float> row(table.width);
      served.tables[t]->ReadRow(batch.features[f].rows[shared ? 0 : rows[r]], row.data());
      arena.insert(arena.end(), row.begin(), row.end());
      few.features[f].rows.push_back(static_cast<uint32_t>(r));
    }
    table_rows.push_back(static_cast<uint32_t>(n));
  }
  for (size_t f = 0; f < spec_.features().size(); ++f) {
    if (!spec_.features()[f].is_number()) continue;
    const bool shared = spec_.features()[f].is_context() && batch.context_rows == 1;
    for (size_t r = 0; r < (shared ? 1 : rows.size()); ++r) {
      few.features[f].values.push_back(batch.features[f].values[shared ? 0 : rows[r]]);
    }
  }
  arena.insert(arena.end(), dense_.begin(), dense_.end());
  const TensorRegistry registry = TensorRegistry::ForTraining(spec_, table_rows);
  ReferenceOptions options;
  options.rounding = {options_.precision, options_.precision};
  return ReferenceForward(spec_, registry.Bind<const Rounded>(spec_, arena.data()), few, options);
}

absl::StatusOr<BenchModel*> BenchModels::Get(const BenchModelOptions& options) {
  const std::lock_guard lock(mutex_);
  std::unique_ptr<BenchModel>& model = models_[options];
  if (model == nullptr) {
    HILOMOE_ASSIGN_OR_RETURN(model, BenchModel::Create(options));
  }
  return model.get();
}

}  // namespace hilomoe::bench
