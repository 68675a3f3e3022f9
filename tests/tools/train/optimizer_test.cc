// Adam against its formula in double, written out here.
#include "tools/train/optimizer.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "tests/model/random_model.h"
#include "tools/train/training_config.h"

namespace hilomoe {
namespace {

constexpr char kModel[] = R"(
  features { id: 1 name: "a" kind: CATEGORICAL scope: CONTEXT id_type: INT64 embedding_width: 2 }
  features { id: 2 name: "n" kind: NUMERIC scope: CONTEXT embedding_width: 3 }
  network { blocks { width: 4 } }
)";

// A step changes a weight by at most the learning rate or so; m, v and the weight are rounded once or twice each.
constexpr double kStepBound = 1e-3 * 16 * 0x1p-24;

class OptimizerTest : public testing::TestWithParam<int> {
 protected:
  OptimizerTest()
      : spec_(SpecFromText(kModel)),
        registry_(TensorRegistry::ForTraining(spec_, {kRows})),
        parallel_(GetParam()),
        weights_(registry_.size()),
        gradients_(registry_.size()) {
    std::mt19937_64 engine(3);
    std::normal_distribution<float> normal;
    for (float& w : weights_) w = normal(engine);
    for (float& g : gradients_) g = normal(engine);
    rates_[static_cast<size_t>(TensorGroup::kEmbedding)] = 1e-3F;
    rates_[static_cast<size_t>(TensorGroup::kBackbone)] = 5e-4F;
  }

  // Rows 1 and 3 of the table are touched, with the gradients that stand in gradients_.
  std::vector<TableGradient<float>> Touched() const {
    std::vector<TableGradient<float>> tables(1);
    tables[0].slot.assign(kRows, -1);
    tables[0].parts.resize(static_cast<size_t>(parallel_.threads()));
    for (const uint32_t row : {3u, 1u}) {
      auto& part = tables[0].parts[row % tables[0].parts.size()];
      tables[0].slot[row] = static_cast<int32_t>(part.rows.size());
      part.rows.push_back(row);
      part.values.insert(part.values.end(), {gradients_[row * 2], gradients_[row * 2 + 1]});
    }
    return tables;
  }

  // Runs `steps` steps with constant gradients, by Adam and by the formula, and compares.
  void ExpectFormula(const v1::Optimizer& config, int steps) {
    Adam adam(config, registry_, parallel_);
    adam.Reset();
    const bool lazy = config.embedding_update() == v1::Optimizer::LAZY;
    std::vector<double> w(weights_.begin(), weights_.end()), m(w.size()), v(w.size());
    for (int t = 1; t <= steps; ++t) {
      std::vector<double> g(w.size(), 0), rate(w.size(), 0);
      for (const TensorSpec& tensor : registry_.tensors()) {
        const bool table = tensor.name == "embedding.a.weight";
        for (size_t i = 0; i < tensor.size; ++i) {
          const bool touched = !table || i / 2 == 1 || i / 2 == 3;
          const size_t at = tensor.offset + i;
          if (lazy && !touched) continue;
          rate[at] = rates_[static_cast<size_t>(tensor.group)];
          if (rate[at] == 0) continue;
          g[at] = touched ? gradients_[at] : 0;
          if (tensor.group == TensorGroup::kEmbedding) g[at] += config.embedding_l2() * w[at];
        }
      }
      double norm = 0;
      for (const double x : g) norm += x * x;
      norm = std::sqrt(norm);
      const double scale = config.gradient_clip_norm() > 0 && norm > config.gradient_clip_norm()
                               ? config.gradient_clip_norm() / norm
                               : 1;
      auto tables = Touched();
      EXPECT_NEAR(adam.Step(rates_, 1, gradients_.data(), tables, weights_.data()), norm, 1e-5 * norm);
      for (size_t i = 0; i < w.size(); ++i) {
        if (rate[i] == 0) continue;
        const double clipped = g[i] * scale;
        m[i] = config.beta1() * m[i] + (1.0 - config.beta1()) * clipped;
        v[i] = config.beta2() * v[i] + (1.0 - config.beta2()) * clipped * clipped;
        w[i] -= rate[i] * m[i] / (1 - std::pow(config.beta1(), t)) /
                (std::sqrt(v[i] / (1 - std::pow(config.beta2(), t))) + config.epsilon());
      }
    }
    for (size_t i = 0; i < w.size(); ++i) {
      // Each step rounds the weight itself, too; clipping adds 1e-6 to the norm's denominator.
      EXPECT_NEAR(weights_[i], w[i], steps * (kStepBound + 2e-9 + std::fabs(w[i]) * 0x1p-24)) << i;
    }
  }

  static constexpr uint32_t kRows = 6;
  const ModelSpec spec_;
  const TensorRegistry registry_;
  Parallel parallel_;
  GroupRates rates_{};
  std::vector<float> weights_, gradients_;
};

TEST_P(OptimizerTest, DenseFollowsTheFormula) {
  v1::Optimizer config;
  config.set_embedding_l2(0.1F);
  config.set_gradient_clip_norm(0);
  ExpectFormula(config, 5);
}

TEST_P(OptimizerTest, LazyLeavesUntouchedRowsAlone) {
  v1::Optimizer config;
  config.set_embedding_update(v1::Optimizer::LAZY);
  config.set_embedding_l2(0.1F);
  config.set_gradient_clip_norm(0);
  const std::vector<float> before = weights_;
  ExpectFormula(config, 5);
  for (const size_t row : {0, 2, 4, 5}) EXPECT_EQ(weights_[row * 2], before[row * 2]);
  EXPECT_NE(weights_[2], before[2]);
}

TEST_P(OptimizerTest, RowwiseAdagradKeepsOneNumberARow) {
  v1::Optimizer config;
  config.set_embedding_update(v1::Optimizer::ROWWISE_ADAGRAD);
  config.set_table_learning_rate(0.1F);
  config.set_embedding_l2(0.2F);
  config.set_gradient_clip_norm(0);
  Adam adam(config, registry_, parallel_);
  adam.Reset();
  EXPECT_EQ(adam.m().size(), registry_.size() - kRows * 2);
  EXPECT_EQ(adam.v().size(), registry_.size() - kRows * 2 + kRows);
  const std::vector<float> before = weights_;
  std::vector<double> w(weights_.begin(), weights_.end()), v(kRows);
  for (int t = 0; t < 4; ++t) {
    auto tables = Touched();
    adam.Step(rates_, 0.5, gradients_.data(), tables, weights_.data());
    for (const size_t row : {1, 3}) {
      double g[2];
      for (size_t j = 0; j < 2; ++j) g[j] = gradients_[row * 2 + j] + config.embedding_l2() * w[row * 2 + j];
      v[row] += (g[0] * g[0] + g[1] * g[1]) / 2;
      for (size_t j = 0; j < 2; ++j) w[row * 2 + j] -= 0.5 * config.table_learning_rate() * g[j] / std::sqrt(v[row]);
    }
  }
  for (size_t i = 0; i < kRows * 2; ++i) EXPECT_NEAR(weights_[i], w[i], 1e-6) << i;
  for (const size_t row : {0, 2, 4, 5}) EXPECT_EQ(weights_[row * 2], before[row * 2]);
  // The numeric vector of the same group stays with Adam: its first steps are of the size of the rate.
  const TensorSpec& numeric = registry_.tensors()[1];
  ASSERT_EQ(numeric.group, TensorGroup::kEmbedding);
  EXPECT_NEAR(std::fabs(weights_[numeric.offset] - before[numeric.offset]), 4e-3, 1e-3);
}

TEST_P(OptimizerTest, ClipsByTheNormOverEverythingTrained) {
  v1::Optimizer config;
  config.set_embedding_l2(0.1F);
  config.set_gradient_clip_norm(0.5F);
  // Adam is nearly indifferent to the scale of constant gradients; a large epsilon makes it show.
  config.set_epsilon(1);
  ExpectFormula(config, 3);
}

TEST_P(OptimizerTest, FrozenGroupsKeepTheirBits) {
  rates_[static_cast<size_t>(TensorGroup::kEmbedding)] = 0;
  v1::Optimizer config;
  config.set_embedding_l2(0.1F);
  const std::vector<float> before = weights_;
  Adam adam(config, registry_, parallel_);
  adam.Reset();
  auto tables = Touched();
  adam.Step(rates_, 1, gradients_.data(), tables, weights_.data());
  for (const TensorSpec& tensor : registry_.tensors()) {
    const bool trained = tensor.group == TensorGroup::kBackbone;
    EXPECT_EQ(weights_[tensor.offset] != before[tensor.offset], trained) << tensor.name;
  }
}

TEST_P(OptimizerTest, ANormThatIsNotFiniteChangesNothing) {
  const std::vector<float> before = weights_;
  gradients_.back() = 1;
  gradients_[registry_.tensors()[2].offset] = NAN;
  Adam adam(v1::Optimizer(), registry_, parallel_);
  adam.Reset();
  auto tables = Touched();
  EXPECT_FALSE(std::isfinite(adam.Step(rates_, 1, gradients_.data(), tables, weights_.data())));
  EXPECT_EQ(weights_, before);
  EXPECT_EQ(adam.steps(), 0u);
}

INSTANTIATE_TEST_SUITE_P(Threads, OptimizerTest, testing::Values(1, 2, 3));

}  // namespace
}  // namespace hilomoe
