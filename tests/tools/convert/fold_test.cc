// Folding, stacking and Gram routing (the formulas of fold.h) change nothing but roundings.
#include "tools/convert/fold.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "model/reference.h"
#include "tests/model/random_model.h"

namespace hilomoe {
namespace {

constexpr size_t kRows = 30;

struct Folded {
  explicit Folded(const std::string& network)
      : spec(SpecFromText(std::string(kAllFeatures) + "network {" + network + "}")),
        table_rows(TableRowsFor(spec, 4)),
        training(TensorRegistry::ForTraining(spec, table_rows)),
        serving(TensorRegistry::ForServing(spec, table_rows)) {
    for (const double weight : RandomWeights(spec, training, 3)) weights.push_back(static_cast<float>(weight));
    tensors = FoldTensors(spec, training, serving, weights);
    std::vector<const float*> data;
    for (const std::vector<float>& tensor : tensors) data.push_back(tensor.data());
    served = serving.BindServing(spec, data);
    trained = training.Bind<const float>(spec, weights.data());
  }

  const ModelSpec spec;
  const std::vector<uint32_t> table_rows;
  const TensorRegistry training, serving;
  std::vector<float> weights;
  std::vector<std::vector<float>> tensors;
  ServingTensors<const float> served;
  ModelTensors<const float> trained;
};

constexpr char kTwoBlocks[] =
    "blocks { width: 6 experts { layers: 3 experts_per_layer: 4 } }"
    "blocks { width: 5 batch_norm: false experts { layers: 2 experts_per_layer: 3 top_k: 2 } }";

TEST(FoldTensorsTest, WhatIsSharedGoesOverAsItIs) {
  const Folded f(kTwoBlocks);
  for (size_t i = 0; i < f.serving.tensors().size(); ++i) {
    const TensorSpec& tensor = f.serving.tensors()[i];
    ASSERT_EQ(f.tensors[i].size(), tensor.size);
    if (tensor.group == TensorGroup::kDerived) continue;
    const auto from = std::find_if(f.training.tensors().begin(), f.training.tensors().end(),
                                   [&](const TensorSpec& t) { return t.name == tensor.name; });
    ASSERT_NE(from, f.training.tensors().end()) << tensor.name;
    EXPECT_TRUE(std::equal(f.tensors[i].begin(), f.tensors[i].end(), f.weights.begin() + from->offset)) << tensor.name;
  }
}

// Each is a double expression of a few roundings (a dot product of D = 21 terms for the Gram matrix), then rounded to
// float once: within 2^-24 of its value, and 30 * 2^-53 of the terms' sizes.
TEST(FoldTensorsTest, DerivedTensorsAreTheirDefinitions) {
  const Folded f(kTwoBlocks);
  const auto near = [](float value, double expected) {
    EXPECT_NEAR(value, expected, 0x1p-24 * std::fabs(expected) + 1e-13);
  };
  for (size_t b = 0; b < 2; ++b) {
    const BlockSpec& block = f.spec.blocks()[b];
    const BlockTensors<const float>& from = f.trained.blocks[b];
    const ServingBlockTensors<const float>& to = f.served.blocks[b];
    const size_t D = block.input, O = block.width, n = block.stack();
    for (size_t o = 0; o < O; ++o) {
      const double a = block.batch_norm ? from.gamma[o] / std::sqrt(from.running_variance[o] + 1e-5) : 1;
      for (size_t d = 0; d < D; ++d) near(to.stacked_weight[o * D + d], a * from.base_weight[o * D + d]);
      for (size_t i = 0; i < n; ++i) near(to.u[i * O + o], a * from.u[i * O + o]);
      near(to.bias[o], block.batch_norm ? (from.base_bias[o] - double{from.running_mean[o]}) * a + from.beta[o]
                                        : from.base_bias[o]);
    }
    for (size_t i = 0; i < n; ++i) {
      for (size_t d = 0; d < D; ++d) EXPECT_EQ(to.stacked_weight[(O + i) * D + d], from.v[i * D + d]);
      for (size_t j = 0; j < n; ++j) {
        double dot = 0;
        for (size_t d = 0; d < D; ++d) dot += double{from.v[i * D + d]} * from.v[j * D + d];
        near(to.gram[i * n + j], dot);
      }
    }
  }
}

// A block in its served form, in double: one product in, the Gram chain, one product out.
void ServedBlock(const BlockSpec& block, const ServingBlockTensors<const float>& t, const std::vector<double>& x,
                 std::vector<double>* y, std::vector<double>* s) {
  const size_t D = block.input, O = block.width, n = block.stack(), K = block.experts;
  std::vector<double> a(n);
  y->assign(O, 0);
  double squared = 0;
  for (size_t d = 0; d < D; ++d) squared += x[d] * x[d];
  for (size_t r = 0; r < O + n; ++r) {
    double& out = r < O ? (*y)[r] : a[r - O];
    for (size_t d = 0; d < D; ++d) out += t.stacked_weight[r * D + d] * x[d];
  }
  const double nu = block.unit_query ? 1 / std::max(std::sqrt(squared), kMinQueryNorm) : 1;
  s->assign(n, 0);
  for (size_t l = 0; l < block.layers; ++l) {
    std::vector<double> z(K);
    for (size_t i = 0; i < K; ++i) {
      double sum = t.alpha[0] * nu * a[l * K + i];
      for (size_t j = 0; j < l * K; ++j) sum += (*s)[j] * t.gram[(l * K + i) * n + j];
      z[i] = t.tau[l] * sum + t.c[l * K + i];
    }
    ReferenceScores(z, block.top_k, s->data() + l * K);
  }
  for (size_t o = 0; o < O; ++o) {
    (*y)[o] += t.bias[o];
    for (size_t i = 0; i < n; ++i) (*y)[o] += a[i] * (*s)[i] * t.u[i * O + o];
    if (block.activation == v1::Block::RELU) (*y)[o] = std::max((*y)[o], 0.0);
  }
}

// Invariants 5 and 8. The only float32 roundings are those of the folded tensors; Rounded allows as many and more.
TEST(FoldTensorsTest, ServedFormEqualsTheReference) {
  for (const char* network :
       {kTwoBlocks, "blocks { width: 6 experts { layers: 3 experts_per_layer: 5 top_k: 2 query_norm: NONE } }",
        "blocks { width: 6 activation: IDENTITY experts { layers: 2 experts_per_layer: 4 routing_scale: PAPER } }",
        "blocks { width: 6 } blocks { width: 4 batch_norm: false }"}) {
    const Folded f(network);
    const EncodedBatch batch = RandomBatch(f.spec, f.table_rows, kRows, false, 8);
    const std::vector<Rounded> arena(f.weights.begin(), f.weights.end());
    const auto expected = ReferenceForward(f.spec, f.training.Bind<const Rounded>(f.spec, arena.data()), batch);
    const std::vector<double> doubles(f.weights.begin(), f.weights.end());
    const auto bound = f.training.Bind<const double>(f.spec, doubles.data());
    size_t compared = 0;
    double scores_differ_by = 0;
    for (size_t r = 0; r < kRows; ++r) {
      if (expected.tie_gap[r] <= Rounded::kDeviations) continue;
      ++compared;
      std::vector<double> x(f.spec.input_width()), y, s;
      for (size_t i = 0; i < f.spec.features().size(); ++i) {
        ReferenceFeature(f.spec, bound.features, batch, i, r, x.data());
      }
      for (size_t b = 0; b < f.spec.blocks().size(); ++b) {
        const size_t n = f.spec.blocks()[b].stack();
        ServedBlock(f.spec.blocks()[b], f.served.blocks[b], x, &y, &s);
        for (size_t i = 0; i < n; ++i) {
          const Rounded& score = expected.scores[b][r * n + i];
          ASSERT_NEAR(s[i], score.value, score.Bound()) << network << " block " << b;
          scores_differ_by = std::max(scores_differ_by, std::fabs(s[i] - score.value));
        }
        x = y;
      }
      double logit = *f.served.head_bias;
      for (size_t d = 0; d < x.size(); ++d) logit += f.served.head_weight[d] * x[d];
      ASSERT_NEAR(logit, expected.logits[r].value, expected.logits[r].Bound()) << network;
    }
    EXPECT_GE(compared, kRows - 1);
    EXPECT_LT(scores_differ_by, 1e-5);
  }
}

}  // namespace
}  // namespace hilomoe
