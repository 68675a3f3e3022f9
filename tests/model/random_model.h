// Models and rows drawn from a seed, for tests of everything that evaluates one.
#ifndef HILOMOE_TESTS_MODEL_RANDOM_MODEL_H_
#define HILOMOE_TESTS_MODEL_RANDOM_MODEL_H_

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "model/encoded_batch.h"
#include "model/model_spec.h"
#include "model/tensor_registry.h"

namespace hilomoe {

// Features of every kind and both scopes; the blocks are the test's.
inline constexpr char kAllFeatures[] = R"(
  features { id: 1 name: "user" kind: CATEGORICAL scope: CONTEXT id_type: STRING embedding_width: 3 }
  features { id: 2 name: "item" kind: CATEGORICAL scope: CANDIDATE id_type: INT64 embedding_width: 4 }
  features { id: 3 name: "history" kind: SEQUENCE scope: CONTEXT id_type: INT64 share_embedding: "item" max_length: 5 }
  features { id: 4 name: "tags" kind: BAG scope: CANDIDATE id_type: STRING embedding_width: 2 }
  features { id: 5 name: "price" kind: NUMERIC scope: CANDIDATE
             numeric { transform: STANDARDISE missing_indicator: true } }
  features { id: 6 name: "age" kind: NUMERIC scope: CONTEXT embedding_width: 2 numeric { transform: LOG1P } }
  features { id: 7 name: "days" kind: NUMERIC scope: CONTEXT embedding_width: 2
             numeric { transform: QUANTILE buckets: 4 } }
  features { id: 8 name: "hash" kind: CATEGORICAL scope: CANDIDATE id_type: INT64 embedding_width: 2
             vocabulary { hash_buckets: 6 } }
)";
// Two sequences that stand side by side and enter by attention alone.
inline constexpr char kAlignedSequences[] = R"(
  features { id: 9 name: "clicks" kind: SEQUENCE scope: CONTEXT id_type: INT64 share_embedding: "item" max_length: 5
             pooling: NONE }
  features { id: 10 name: "topics" kind: SEQUENCE scope: CONTEXT id_type: STRING embedding_width: 3 max_length: 5
             pooling: NONE }
)";
inline constexpr char kAttention[] = R"(
  attention { query: "item" history: "clicks" history: "topics" heads: 2 head_width: 3 output_width: 4 }
  attention { query: "item" query: "hash" history: "history" head_width: 5 }
)";

inline v1::ModelConfig ModelConfigFromText(const std::string& text) {
  v1::ModelConfig config;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &config)) << text;
  return config;
}

inline ModelSpec SpecFromText(const std::string& text) {
  absl::StatusOr<ModelSpec> spec = ModelSpec::Create(ModelConfigFromText(text));
  EXPECT_TRUE(spec.ok()) << spec.status();
  return *std::move(spec);
}

// Rows of the tables of a spec, `ids` ids each where a vocabulary decides.
inline std::vector<uint32_t> TableRowsFor(const ModelSpec& spec, uint32_t ids) {
  std::vector<uint32_t> rows;
  for (const TableSpec& table : spec.tables()) {
    rows.push_back(kReservedRows + (table.has_vocabulary() ? ids : table.hash_buckets + table.buckets));
  }
  return rows;
}

// Values of a size that keeps activations around 1; what must be positive (deviations, gamma, tau) is.
inline std::vector<double> RandomWeights(const ModelSpec& spec, const TensorRegistry& registry, uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<double> normal;
  std::vector<double> weights(registry.size());
  for (const TensorSpec& tensor : registry.tensors()) {
    const double fan_in = tensor.shape.size() > 1 ? static_cast<double>(tensor.shape.back()) : 1;
    const bool positive = absl::EndsWith(tensor.name, "norm.weight") || absl::EndsWith(tensor.name, "running_var") ||
                          absl::EndsWith(tensor.name, "router.alpha") || absl::EndsWith(tensor.name, "router.tau");
    for (size_t i = 0; i < tensor.size; ++i) {
      double value = normal(engine) / (tensor.group == TensorGroup::kEmbedding ? 1 : std::sqrt(fan_in));
      if (positive) value = 0.5 + std::fabs(value);
      // A float's value, so that the model can be written to files without a change.
      weights[tensor.offset + i] = static_cast<double>(static_cast<float>(value));
    }
  }
  for (size_t f = 0; f < spec.features().size(); ++f) {
    double* boundaries = registry.Bind(spec, weights.data()).features.boundaries[f];
    if (boundaries == nullptr) continue;
    std::sort(boundaries, boundaries + spec.tables()[spec.features()[f].table].buckets - 1);
  }
  return weights;
}

// `rows` candidate rows and 1 or as many context rows; pooled features have 0 to max_length values.
inline EncodedBatch RandomBatch(const ModelSpec& spec, const std::vector<uint32_t>& table_rows, size_t rows,
                                bool shared_context, uint64_t seed) {
  std::mt19937_64 engine(seed);
  EncodedBatch batch;
  batch.candidate_rows = rows;
  batch.context_rows = shared_context ? 1 : rows;
  for (size_t f = 0; f < spec.features().size(); ++f) {
    const FeatureSpec& feature = spec.features()[f];
    EncodedFeature& encoded = batch.features.emplace_back();
    // The sequence it stands beside, if that came before: it has the same lengths.
    const EncodedFeature* beside = nullptr;
    for (const AttentionSpec& attention : spec.attention()) {
      const bool mine = std::find(attention.history.begin(), attention.history.end(), f) != attention.history.end();
      const size_t first = static_cast<size_t>(attention.history[0]);
      if (mine && first < f) beside = &batch.features[first];
    }
    const size_t n = feature.is_context() ? batch.context_rows : rows;
    const auto row = [&] { return static_cast<uint32_t>(engine() % table_rows[feature.table]); };
    if (feature.is_pooled()) {
      encoded.offsets.push_back(0);
      for (size_t r = 0; r < n; ++r) {
        size_t length = engine() % (feature.max_length % 8 + 1);
        if (beside != nullptr) length = beside->offsets[r + 1] - beside->offsets[r];
        for (; length > 0; --length) encoded.rows.push_back(row());
        encoded.offsets.push_back(static_cast<uint32_t>(encoded.rows.size()));
      }
      continue;
    }
    for (size_t r = 0; r < n; ++r) {
      if (!feature.is_number()) {
        encoded.rows.push_back(row());
        continue;
      }
      const bool missing = engine() % 4 == 0;
      encoded.values.push_back(missing ? 0 : static_cast<float>(static_cast<double>(engine() % 2000) / 1000 - 1));
      if (feature.missing_indicator) encoded.missing.push_back(missing ? 1 : 0);
    }
  }
  return batch;
}

}  // namespace hilomoe

#endif  // HILOMOE_TESTS_MODEL_RANDOM_MODEL_H_
