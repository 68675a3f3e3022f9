// With scores that are the same for every row, the experts of a block are one matrix: sum_i s_i u_i v_i^T. The
// reference without experts, with that matrix added to the base weight, must give the same logits.
#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "model/reference.h"
#include "tests/model/random_model.h"
#include "tools/train/network.h"

namespace hilomoe {
namespace {

constexpr size_t kRows = 37;

TEST(FixedScoresTest, EqualTheExpertsMergedIntoTheBase) {
  const ModelSpec spec = SpecFromText(std::string(kAllFeatures) + R"(network {
    blocks { width: 6 experts { layers: 3 experts_per_layer: 4 } }
    blocks { width: 7 }
    blocks { width: 5 experts { layers: 2 experts_per_layer: 5 top_k: 2 } } })");
  const std::vector<uint32_t> table_rows = TableRowsFor(spec, 3);
  const TensorRegistry registry = TensorRegistry::ForTraining(spec, table_rows);
  const std::vector<double> weights = RandomWeights(spec, registry, 3);
  const EncodedBatch batch = RandomBatch(spec, table_rows, kRows, false, 5);
  const auto tensors = registry.Bind<const double>(spec, weights.data());

  // Any numbers will do; those of top-k layers, too, may all be other than 0, as means are.
  std::vector<std::vector<double>> scores(spec.blocks().size());
  for (size_t b = 0; b < scores.size(); ++b) {
    for (size_t i = 0; i < spec.blocks()[b].stack(); ++i) scores[b].push_back(0.1 + 0.05 * static_cast<double>(i + b));
  }
  Parallel parallel(2);
  Network<double> network(spec, registry, parallel);
  std::vector<double> logits(kRows), routed(kRows);
  network.Forward(tensors, batch, {.fixed_scores = &scores}, absl::MakeSpan(logits));
  network.Forward(tensors, batch, {}, absl::MakeSpan(routed));

  std::vector<double> merged = weights;
  const auto bound = registry.Bind(spec, merged.data());
  for (size_t b = 0; b < scores.size(); ++b) {
    const BlockSpec& block = spec.blocks()[b];
    for (size_t i = 0; i < block.stack(); ++i) {
      for (size_t o = 0; o < block.width; ++o) {
        for (size_t d = 0; d < block.input; ++d) {
          bound.blocks[b].base_weight[o * block.input + d] +=
              scores[b][i] * tensors.blocks[b].u[i * block.width + o] * tensors.blocks[b].v[i * block.input + d];
        }
      }
    }
  }
  ReferenceOptions options;
  options.experts = false;
  const auto expected = ReferenceForward(spec, registry.Bind<const double>(spec, merged.data()), batch, options);
  double difference = 0;
  for (size_t r = 0; r < kRows; ++r) {
    // Sums of some 10^2 terms of about 1 in three blocks, reordered: 10^4 roundings of 2^-53 are far more than there
    // are.
    EXPECT_NEAR(logits[r], expected.logits[r], 1e4 * 0x1p-53) << "row " << r;
    difference = std::max(difference, std::fabs(logits[r] - routed[r]));
  }
  EXPECT_GT(difference, 1e-3) << "the scores were not fixed";
}

}  // namespace
}  // namespace hilomoe
