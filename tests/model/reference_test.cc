// What must hold of the plain reference by the definition of the model (the paper, arXiv 2510.10432, and
// model_config.proto); everything fast is held against the reference.
#include "model/reference.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/model/random_model.h"

namespace hilomoe {
namespace {

constexpr size_t kRows = 40;

struct Model {
  explicit Model(const std::string& blocks)
      : spec(SpecFromText(absl::StrCat(kAllFeatures, "network {", blocks, "}"))),
        table_rows(TableRowsFor(spec, 4)),
        registry(TensorRegistry::ForTraining(spec, table_rows)),
        weights(RandomWeights(spec, registry, 5)),
        batch(RandomBatch(spec, table_rows, kRows, false, 6)) {}

  ModelTensors<double> tensors() { return registry.Bind(spec, weights.data()); }
  ReferenceOutput<double> Forward(const ReferenceOptions& options = {}) const {
    return ReferenceForward(spec, registry.Bind<const double>(spec, weights.data()), batch, options);
  }
  // Copies what both models have under the same name.
  void CopyFrom(const Model& other) {
    for (const TensorSpec& to : registry.tensors()) {
      for (const TensorSpec& from : other.registry.tensors()) {
        if (from.name == to.name && from.shape == to.shape) {
          std::copy_n(other.weights.begin() + from.offset, from.size, weights.begin() + to.offset);
        }
      }
    }
  }

  ModelSpec spec;
  std::vector<uint32_t> table_rows;
  TensorRegistry registry;
  std::vector<double> weights;
  EncodedBatch batch;
};

constexpr char kDense[] = "blocks { width: 6 } blocks { width: 5 }";
constexpr char kExperts[] =
    "blocks { width: 6 experts { layers: 3 experts_per_layer: 4 } }"
    "blocks { width: 5 experts { layers: 2 experts_per_layer: 3 } }";
constexpr char kTopK[] =
    "blocks { width: 6 experts { layers: 3 experts_per_layer: 5 top_k: 2 } }"
    "blocks { width: 5 experts { layers: 2 experts_per_layer: 4 top_k: 3 } }";

// 1. L = 0 is an ordinary layer, written out here with the same order of sums.
TEST(ReferenceTest, WithoutExpertsABlockIsADenseLayer) {
  Model model(kDense);
  const auto tensors = model.tensors();
  const ReferenceOutput<double> out = model.Forward();
  for (size_t r = 0; r < kRows; ++r) {
    std::vector<double> x(model.spec.input_width());
    const auto bound = model.registry.Bind<const double>(model.spec, model.weights.data());
    for (size_t f = 0; f < model.spec.features().size(); ++f) {
      ReferenceFeature(model.spec, bound.features, model.batch, f, r, x.data());
    }
    for (const BlockTensors<double>& block : tensors.blocks) {
      const size_t width = block.base_weight == tensors.blocks[0].base_weight ? 6 : 5;
      std::vector<double> y(width);
      for (size_t o = 0; o < width; ++o) {
        y[o] = block.base_bias[o];
        for (size_t d = 0; d < x.size(); ++d) y[o] += block.base_weight[o * x.size() + d] * x[d];
        const double scale = block.gamma[o] / std::sqrt(block.running_variance[o] + 1e-5);
        y[o] = (y[o] - block.running_mean[o]) * scale + block.beta[o];
        y[o] = std::max(y[o], 0.0);
      }
      x = y;
    }
    double logit = tensors.head_bias[0];
    for (size_t d = 0; d < x.size(); ++d) logit += x[d] * tensors.head_weight[d];
    EXPECT_EQ(out.logits[r], logit);
    EXPECT_TRUE(std::isinf(out.tie_gap[r]));
  }
  EXPECT_TRUE(out.scores[0].empty());
}

// 1 and 2: the same bits without layers, with experts switched off, and with U = 0.
TEST(ReferenceTest, NoExpertsEqualsNoOutputOfExperts) {
  Model dense(kDense);
  for (const char* blocks : {kExperts, kTopK}) {
    Model experts(blocks);
    dense.CopyFrom(experts);
    const std::vector<double> expected = dense.Forward().logits;
    EXPECT_NE(experts.Forward().logits, expected);
    EXPECT_EQ(experts.Forward({.experts = false}).logits, expected);
    const auto tensors = experts.tensors();
    for (size_t b = 0; b < 2; ++b) {
      const BlockSpec& block = experts.spec.blocks()[b];
      std::fill_n(tensors.blocks[b].u, block.stack() * block.width, 0.0);
    }
    EXPECT_EQ(experts.Forward().logits, expected);
  }
}

// 3. A softmax over k numbers: each score has a relative error of a few 2^-53, their sum of at most k + 2 of them.
TEST(ReferenceTest, ScoresOfALayerSumToOne) {
  for (const char* blocks : {kExperts, kTopK}) {
    const Model model(blocks);
    const ReferenceOutput<double> out = model.Forward();
    for (size_t b = 0; b < 2; ++b) {
      const BlockSpec& block = model.spec.blocks()[b];
      for (size_t layer = 0; layer < kRows * block.layers; ++layer) {
        const double* s = &out.scores[b][layer * block.experts];
        const double* z = &out.routing_logits[b][layer * block.experts];
        EXPECT_NEAR(std::accumulate(s, s + block.experts, 0.0), 1, 10 * 0x1p-53);
        const auto kept = std::count_if(s, s + block.experts, [](double e) { return e > 0; });
        EXPECT_EQ(kept, block.top_k > 0 ? block.top_k : block.experts);
        for (size_t i = 0; i < block.experts; ++i) {
          for (size_t j = 0; j < block.experts; ++j) {
            EXPECT_TRUE(z[i] <= z[j] || s[i] >= s[j]);
          }
        }
      }
    }
  }
}

// 4. Sums of at most L * (K + D) = 3 * 26 terms change their order; values are around 1 to 10, and what a layer changes
// in a later one's routing grows by less than 100.
constexpr double kReordered = 78 * 10 * 100 * 0x1p-53;

TEST(ReferenceTest, PermutedExpertsGiveTheSame) {
  for (const char* blocks : {kExperts, kTopK}) {
    Model model(blocks);
    const ReferenceOutput<double> before = model.Forward();
    for (const double gap : before.tie_gap) ASSERT_GT(gap, 1e-9);
    const auto tensors = model.tensors();
    for (size_t b = 0; b < 2; ++b) {
      const BlockSpec& block = model.spec.blocks()[b];
      for (size_t l = 0; l < block.layers; ++l) {
        // Rotated by one: rows of V and U and entries of c together.
        const size_t first = l * block.experts, last = first + block.experts;
        const BlockTensors<double>& t = tensors.blocks[b];
        std::rotate(t.v + first * block.input, t.v + (first + 1) * block.input, t.v + last * block.input);
        std::rotate(t.u + first * block.width, t.u + (first + 1) * block.width, t.u + last * block.width);
        std::rotate(t.c + first, t.c + first + 1, t.c + last);
      }
    }
    const ReferenceOutput<double> after = model.Forward();
    EXPECT_NE(before.scores[0], after.scores[0]);
    for (size_t r = 0; r < kRows; ++r) EXPECT_NEAR(before.logits[r], after.logits[r], kReordered);
    // Left out of the permutation, U alone would change it.
    std::rotate(tensors.blocks[0].u, tensors.blocks[0].u + 6, tensors.blocks[0].u + 24);
    EXPECT_GT(std::fabs(before.logits[0] - model.Forward().logits[0]), 1e3 * kReordered);
  }
}

TEST(ReferenceTest, OfEqualLogitsTheLowerIndexWins) {
  struct {
    std::vector<double> z;
    size_t top_k;
    std::vector<bool> kept;
  } const cases[] = {
      {{1, 1, 1, 1}, 2, {true, true, false, false}},
      {{0, 2, 1, 1, 1}, 3, {false, true, true, true, false}},
      {{-0.0, 0.0, 0.0}, 2, {true, true, false}},
      {{0, 3, 3, 3, 2}, 2, {false, true, true, false, false}},
  };
  for (const auto& c : cases) {
    std::vector<double> s(c.z.size(), -1);
    EXPECT_EQ(ReferenceScores(c.z, c.top_k, s.data()), 0);
    for (size_t i = 0; i < s.size(); ++i) EXPECT_EQ(s[i] > 0, c.kept[i]) << i;
  }
  // The gap is that of the last one kept to the first one left out.
  std::vector<double> s(4);
  EXPECT_EQ(ReferenceScores<double>({4, 1, 7, 3}, 2, s.data()), 1);
  EXPECT_NEAR(s[2], 1 / (1 + std::exp(-3.0)), 4 * 0x1p-53);
  // In units of the rounding error's deviation, where numbers carry one: (4 - 3) / sqrt(0.0009 + 0.0016) = 20.
  std::vector<Rounded> rounded(4);
  const std::vector<Rounded> z = {{4, 0.0009}, {1, 0}, {7, 0}, {3, 0.0016}};
  EXPECT_NEAR(ReferenceScores(z, 2, rounded.data()), 20, 1e-12);
}

TEST(ReferenceTest, RoutingReadsScoresOfTheLayersBeforeNotTheirOutputs) {
  Model model(kExperts);
  const ReferenceOutput<double> before = model.Forward();
  const auto tensors = model.tensors();
  for (size_t i = 0; i < 12 * 6; ++i) tensors.blocks[0].u[i] *= 3;
  EXPECT_EQ(model.Forward().scores[0], before.scores[0]);
  EXPECT_NE(model.Forward().scores[1], before.scores[1]);  // the next block reads the output
  // A change to the last layer's experts leaves the layers before it alone; one to the first moves all after it.
  const auto changed_layers = [&](size_t layer) {
    Model other(kExperts);
    for (size_t i = 0; i < 4 * 21; ++i) other.tensors().blocks[0].v[layer * 4 * 21 + i] *= 1.5;
    const std::vector<double> scores = other.Forward().scores[0];
    std::vector<bool> changed(3);
    for (size_t i = 0; i < scores.size(); ++i)
      changed[i % 12 / 4] = changed[i % 12 / 4] || scores[i] != before.scores[0][i];
    return changed;
  };
  EXPECT_EQ(changed_layers(2), (std::vector<bool>{false, false, true}));
  EXPECT_EQ(changed_layers(0), (std::vector<bool>{true, true, true}));
}

// q_1 = alpha x / |x|: the length of x does not matter, down to the smallest length that is taken.
TEST(ReferenceTest, UnitQueriesIgnoreTheScaleOfTheInput) {
  const Model model("blocks { width: 6 experts { layers: 2 experts_per_layer: 4 } }");
  const Model raw("blocks { width: 6 experts { layers: 2 experts_per_layer: 4 query_norm: NONE } }");
  const auto scores = [](const Model& m, double factor) {
    std::vector<double> x(21), y(6), z(8), s(8);
    for (size_t i = 0; i < x.size(); ++i) x[i] = factor * std::sin(static_cast<double>(i));
    const auto tensors = m.registry.Bind<const double>(m.spec, m.weights.data());
    ReferenceBlock(m.spec.blocks()[0], tensors.blocks[0], true, x.data(), y.data(), z.data(), s.data());
    return s;
  };
  for (size_t i = 0; i < 8; ++i) {
    EXPECT_NEAR(scores(model, 1)[i], scores(model, 256)[i], kReordered);
    EXPECT_TRUE(std::isfinite(scores(model, 0)[i]));
  }
  EXPECT_NE(scores(raw, 1), scores(raw, 256));
  EXPECT_NE(scores(model, 1), scores(model, 1e-7));  // below the floor
}

TEST(ReferenceTest, PoolingAveragesAllEntriesAndNoneGivesZero) {
  const Model model("");
  EncodedBatch batch = model.batch;
  EncodedFeature& tags = batch.features[3];
  tags.rows = {kOutOfVocabularyRow, 2, 3};
  tags.offsets.assign(kRows + 1, 3);
  tags.offsets[0] = 0;
  const auto tensors = model.registry.Bind<const double>(model.spec, model.weights.data());
  std::vector<double> x(21, 99);
  ReferenceFeature(model.spec, tensors.features, batch, 3, 0, x.data());
  const double* table = tensors.features.tables[2];
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_NEAR(x[15 + i], (table[i] + table[2 * 2 + i] + table[3 * 2 + i]) / 3, 8 * 0x1p-53);
  }
  ReferenceFeature(model.spec, tensors.features, batch, 3, 1, x.data());
  EXPECT_EQ(x[15], 0);
  EXPECT_EQ(x[16], 0);
  EXPECT_EQ(x[17], 99);  // and writes nothing else
  EXPECT_EQ(x[14], 99);
}

// Where a rounding error may lift a number above zero, ReLU lets the error pass; far below it does not.
TEST(ReferenceTest, ReluOfARoundedNumberKeepsTheErrorThatMayPass) {
  EXPECT_EQ(Relu(Rounded(2, 1)).variance, 1);
  EXPECT_EQ(Relu(Rounded(2, 1)).value, 2);
  EXPECT_EQ(Relu(Rounded(-9, 1)).value, 0);
  EXPECT_EQ(Relu(Rounded(-9, 1)).variance, 1);
  EXPECT_EQ(Relu(Rounded(-11, 1)).variance, 0);
  EXPECT_EQ(Relu(-2.0), 0);
  EXPECT_EQ(Relu(2.0), 2);
}

TEST(ReferenceTest, DropoutMultipliesTheActivation) {
  const Model model(kDense);
  ReferenceOptions all;
  all.dropout = [](size_t b, size_t, size_t) { return b == 1 ? 0.0 : 1.0; };
  const double bias = *model.registry.Bind<const double>(model.spec, model.weights.data()).head_bias;
  for (const double logit : model.Forward(all).logits) EXPECT_EQ(logit, bias);
  EXPECT_NE(model.Forward().logits[0], bias);
}

// Batch norm in training mode: every column has mean beta and deviation gamma over the batch.
TEST(ReferenceTest, BatchStatisticsNormalise) {
  Model model("blocks { width: 6 activation: IDENTITY }");
  const auto tensors = model.tensors();
  // The head reads one column, so that the logits are that column.
  std::fill_n(tensors.head_weight, 6, 0.0);
  tensors.head_weight[2] = 1;
  tensors.head_bias[0] = 0;
  const std::vector<double> column = model.Forward({.batch_statistics = true}).logits;
  const double mean = std::accumulate(column.begin(), column.end(), 0.0) / kRows;
  double variance = 0;
  for (const double y : column) variance += (y - mean) * (y - mean) / kRows;
  EXPECT_NEAR(mean, tensors.blocks[0].beta[2], 1e-13);
  // eps = 1e-5 beside a variance above 0.1.
  EXPECT_NEAR(std::sqrt(variance), tensors.blocks[0].gamma[2], 1e-4 * tensors.blocks[0].gamma[2]);
}

}  // namespace
}  // namespace hilomoe
