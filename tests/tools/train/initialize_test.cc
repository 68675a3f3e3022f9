#include "tools/train/initialize.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "tests/model/random_model.h"

namespace hilomoe {
namespace {

ModelSpec SpecWith(const std::string& query_norm) {
  const std::string block =
      "blocks { width: 8 experts { layers: 3 experts_per_layer: 4 query_norm: " + query_norm + " } }";
  return SpecFromText(std::string(kAllFeatures) + "network {" + block + block + "}");
}

class InitializeTest : public testing::TestWithParam<std::string> {};

TEST_P(InitializeTest, CalibratedLogitsHaveUnitDeviationAndNoMean) {
  constexpr size_t kRows = 500;
  const ModelSpec spec = SpecWith(GetParam());
  const std::vector<uint32_t> table_rows = TableRowsFor(spec, 20);
  const TensorRegistry registry = TensorRegistry::ForTraining(spec, table_rows);
  std::vector<float> weights(registry.size());
  InitializeWeights(spec, registry, 1, 0.5F, weights.data());
  Parallel parallel(2);
  Network<float> network(spec, registry, parallel);
  const EncodedBatch batch = RandomBatch(spec, table_rows, kRows, false, 5);
  CalibrateRouting(spec, registry, batch, network, weights.data());

  std::vector<float> logits(kRows);
  const auto tensors = registry.Bind<const float>(spec, weights.data());
  network.Forward(tensors, batch, {}, absl::MakeSpan(logits));
  for (size_t b = 0; b < spec.blocks().size(); ++b) {
    const BlockSpec& block = spec.blocks()[b];
    const std::vector<float>& raw = network.blocks()[b]->raw_logits();
    for (size_t l = 0; l < block.layers; ++l) {
      double squared = 0;
      for (size_t i = 0; i < block.experts; ++i) {
        double mean = 0;
        for (size_t r = 0; r < kRows; ++r) {
          const size_t at = l * block.experts + i;
          const double z = tensors.blocks[b].tau[l] * raw[r * block.stack() + at] + tensors.blocks[b].c[at];
          mean += z / kRows;
          squared += z * z / (kRows * static_cast<double>(block.experts));
        }
        // Float sums of kRows terms around 1.
        EXPECT_NEAR(mean, 0, kRows * 0x1p-24) << b << " " << l << " " << i;
      }
      EXPECT_NEAR(squared, 1, kRows * 0x1p-24) << b << " " << l;
    }
    if (!block.unit_query) {
      double norm = 0;
      const float* x = network.block_input(b);
      for (size_t r = 0; r < kRows; ++r) {
        double sum = 0;
        for (size_t d = 0; d < block.input; ++d) sum += x[r * block.input + d] * x[r * block.input + d];
        norm += std::sqrt(sum) / kRows;
      }
      EXPECT_NEAR(tensors.blocks[b].alpha[0] * norm, 1, 1e-4);
    } else {
      EXPECT_EQ(tensors.blocks[b].alpha[0], 1);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(QueryNorms, InitializeTest, testing::Values("UNIT", "NONE"));

TEST(InitializeTest, VStartsOrthonormalAndUAtZero) {
  const ModelSpec spec = SpecWith("UNIT");
  const std::vector<uint32_t> table_rows = TableRowsFor(spec, 20);
  const TensorRegistry registry = TensorRegistry::ForTraining(spec, table_rows);
  std::vector<float> weights(registry.size());
  InitializeWeights(spec, registry, 1, 0.5F, weights.data());
  const auto tensors = registry.Bind<const float>(spec, weights.data());
  for (size_t b = 0; b < spec.blocks().size(); ++b) {
    const BlockSpec& block = spec.blocks()[b];
    for (size_t l = 0; l < block.layers; ++l) {
      for (size_t i = 0; i < block.experts; ++i) {
        for (size_t j = 0; j < block.experts; ++j) {
          double dot = 0;
          for (size_t d = 0; d < block.input; ++d) {
            dot += tensors.blocks[b].v[(l * block.experts + i) * block.input + d] *
                   tensors.blocks[b].v[(l * block.experts + j) * block.input + d];
          }
          EXPECT_NEAR(dot, i == j ? 1 : 0, 1e-5);
        }
      }
    }
    for (size_t i = 0; i < block.stack() * block.width; ++i) EXPECT_EQ(tensors.blocks[b].u[i], 0);
  }
  // The out-of-vocabulary row of every table starts at zero, the rows behind it do not.
  for (size_t t = 0; t < spec.tables().size(); ++t) {
    EXPECT_EQ(tensors.features.tables[t][0], 0);
    EXPECT_NE(tensors.features.tables[t][spec.tables()[t].width], 0);
  }
}

TEST(InitializeTest, AHeadOfOneWeightIsAHead) {
  const ModelSpec spec = SpecFromText(std::string(kAllFeatures) + "network { blocks { width: 1 } }");
  const TensorRegistry registry = TensorRegistry::ForTraining(spec, TableRowsFor(spec, 20));
  std::vector<float> weights(registry.size());
  InitializeWeights(spec, registry, 1, 0.5F, weights.data());
  const auto tensors = registry.Bind<const float>(spec, weights.data());
  EXPECT_NE(tensors.head_weight[0], 0);
  EXPECT_EQ(tensors.head_bias[0], 0);
}

TEST(InitializeTest, ATensorDependsOnSeedAndNameAlone) {
  const ModelSpec one = SpecFromText(std::string(kAllFeatures) + "network { blocks { width: 8 } }");
  const ModelSpec two = SpecFromText(std::string(kAllFeatures) + "network { blocks { width: 8 } blocks { width: 3 } }");
  const std::vector<uint32_t> table_rows = TableRowsFor(one, 20);
  const TensorRegistry registry_one = TensorRegistry::ForTraining(one, table_rows);
  const TensorRegistry registry_two = TensorRegistry::ForTraining(two, table_rows);
  std::vector<float> w1(registry_one.size()), w2(registry_two.size()), w3(registry_one.size());
  InitializeWeights(one, registry_one, 1, 0.5F, w1.data());
  InitializeWeights(two, registry_two, 1, 0.5F, w2.data());
  InitializeWeights(one, registry_one, 2, 0.5F, w3.data());
  const size_t at = registry_one.Bind<float>(one, w1.data()).blocks[0].base_weight - w1.data();
  EXPECT_EQ(w1[at], w2[at]);
  EXPECT_NE(w1[at], w3[at]);
}

}  // namespace
}  // namespace hilomoe
