// The hand-derived gradients against complex-step derivatives of the plain reference, for every parameter.
//
// Complex step: f(w + ih) = f(w) + ih f'(w) + O(h^2), so Im f / h is exact to rounding for h = 1e-30. What is left is
// the rounding of two double evaluations: sums of at most n ~ 10^4 terms of the size of the largest gradient, hence the
// bound 10^4 * 2^-53 * (largest gradient of the model) ~ 1e-12 of it.
#include <complex>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "model/reference_loss.h"
#include "tests/model/random_model.h"
#include "tools/train/network.h"

namespace hilomoe {
namespace {

using Complex = std::complex<double>;

constexpr double kStep = 1e-30;
constexpr double kBound = 1e4 * 0x1p-53;
constexpr size_t kRows = 19;  // a whole tile of routing and a part of one

struct Case {
  std::string name;
  std::string network;
  ForwardMode forward;
  LossWeights losses;
  std::string equal_to = {};  // the reference's network, where it is another one
  std::vector<float> sample_weights = {};
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class GradientTest : public testing::TestWithParam<Case> {};

TEST_P(GradientTest, EqualsComplexStep) {
  const Case& c = GetParam();
  const auto spec_of = [](const std::string& network) {
    const bool aligned = network.find("attention") != std::string::npos;
    return SpecFromText(absl::StrCat(kAllFeatures, aligned ? kAlignedSequences : "", "network {", network, "}"));
  };
  const ModelSpec spec = spec_of(c.network);
  const ModelSpec reference_spec = spec_of(c.equal_to.empty() ? c.network : c.equal_to);
  const std::vector<uint32_t> table_rows = TableRowsFor(spec, 3);
  const TensorRegistry registry = TensorRegistry::ForTraining(spec, table_rows);
  const std::vector<double> weights = RandomWeights(spec, registry, 7);
  const EncodedBatch batch = RandomBatch(spec, table_rows, kRows, false, 11);
  std::vector<float> labels(kRows);
  for (size_t r = 0; r < kRows; ++r) labels[r] = r % 3 == 0 || r % 5 == 4 ? 1 : 0;

  // Ours.
  Parallel parallel(2);
  Network<double> network(spec, registry, parallel);
  std::vector<double> gradients(registry.size(), 0), logits(kRows), gaps(kRows);
  network.Forward(registry.Bind<const double>(spec, weights.data()), batch, c.forward, absl::MakeSpan(logits),
                  gaps.data());
  for (const double gap : gaps) ASSERT_GT(gap, 1e-6) << "the seed gives a top-k tie; take another one";
  const auto loss = network.Backward(registry.Bind<const double>(spec, weights.data()), batch, labels, c.sample_weights,
                                     {.losses = c.losses}, registry.Bind(spec, gradients.data()));
  for (size_t i = 0; i < registry.gathered(); ++i) {
    const size_t d = registry.tensors()[i].shape[1];
    for (const auto& part : network.embedding().table_gradients()[i].parts) {
      for (size_t n = 0; n < part.rows.size(); ++n) {
        for (size_t j = 0; j < d; ++j) {
          gradients[registry.tensors()[i].offset + part.rows[n] * d + j] = part.values[n * d + j];
        }
      }
    }
  }

  // The reference's.
  ReferenceOptions options;
  options.experts = c.forward.experts;
  options.batch_statistics = c.forward.batch_statistics;
  if (c.forward.dropout) {
    options.dropout = [&](size_t b, size_t r, size_t o) {
      const BlockSpec& block = spec.blocks()[b];
      return DropoutMask(block.dropout, c.forward.dropout_seed, c.forward.step, b).Factor(r * block.width + o);
    };
  }
  std::vector<Complex> arena(weights.begin(), weights.end());
  const auto bound = registry.Bind<const Complex>(spec, arena.data());
  const auto evaluate = [&] {
    const auto output = ReferenceForward(reference_spec, bound, batch, options);
    return ReferenceLoss<Complex>(reference_spec, bound, output, labels, {}, c.losses, c.sample_weights);
  };
  EXPECT_NEAR(loss.bce + loss.routing, evaluate().real(), kBound * 100);

  std::vector<double> expected(registry.size(), 0);
  double largest = 0;
  for (size_t i = 0; i < arena.size(); ++i) {
    arena[i] += Complex(0, kStep);
    expected[i] = evaluate().imag() / kStep;
    arena[i] = weights[i];
    largest = std::max(largest, std::fabs(expected[i]));
  }
  ASSERT_GT(largest, 1e-3);
  for (const TensorSpec& tensor : registry.tensors()) {
    // Statistics are not trained; the router of a PAPER block is constant by definition.
    if (tensor.group == TensorGroup::kStatistic) continue;
    const bool constant = tensor.group == TensorGroup::kRouter && c.name.find("paper") != std::string::npos;
    double tensor_largest = 0;
    for (size_t i = tensor.offset; i < tensor.offset + tensor.size; ++i) {
      EXPECT_NEAR(gradients[i], constant ? 0 : expected[i], kBound * largest)
          << tensor.name << "[" << i - tensor.offset << "]";
      tensor_largest = std::max(tensor_largest, std::fabs(expected[i]));
    }
    const bool unused =
        !c.forward.experts && (tensor.group == TensorGroup::kExpert || tensor.group == TensorGroup::kRouter);
    const bool cancelled = c.forward.batch_statistics && tensor.name.find("base.bias") != std::string::npos;
    if (!unused && !cancelled) {
      EXPECT_GT(tensor_largest, 1e-7) << tensor.name << " has no gradient to check";
    }
  }
}

constexpr size_t kAnnealed[] = {4, 0};
constexpr LossWeights kLosses = {.load_balance = 0.3, .router_z = 0.2, .diversity = 0.4};

std::vector<Case> Cases() {
  return {
      Case{"dense_baseline", "blocks { width: 6 } blocks { width: 5 }", {.batch_statistics = true}, {}},
      Case{"no_blocks", "", {}, {}},
      Case{"experts_off",
           "blocks { width: 6 experts { layers: 2 experts_per_layer: 3 } } blocks { width: 5 }",
           {.experts = false, .batch_statistics = true},
           {}},
      Case{"dense_routing",
           "blocks { width: 6 experts { layers: 3 experts_per_layer: 4 } }"
           "blocks { width: 5 experts { layers: 2 experts_per_layer: 3 } }",
           {.batch_statistics = true, .routing_sums = true},
           kLosses},
      Case{"dense_routing_frozen_norm",
           "blocks { width: 6 experts { layers: 2 experts_per_layer: 4 } }"
           "blocks { width: 5 experts { layers: 1 experts_per_layer: 9 } }",
           {.batch_statistics = false, .routing_sums = true},
           kLosses},
      Case{"top_k",
           "blocks { width: 6 experts { layers: 3 experts_per_layer: 5 top_k: 2 } }"
           "blocks { width: 5 experts { layers: 2 experts_per_layer: 4 top_k: 3 } }",
           {.batch_statistics = true, .routing_sums = true},
           kLosses},
      Case{"annealed_top_k",  // the dense model's routing, on a spec that ends with 2
           "blocks { width: 6 experts { layers: 3 experts_per_layer: 5 top_k: 2 } }"
           "blocks { width: 5 experts { layers: 2 experts_per_layer: 4 top_k: 2 } }",
           {.batch_statistics = true, .routing_sums = true, .top_k = kAnnealed},
           kLosses,
           "blocks { width: 6 experts { layers: 3 experts_per_layer: 5 top_k: 4 } }"
           "blocks { width: 5 experts { layers: 2 experts_per_layer: 4 } }"},
      Case{"raw_query",
           "blocks { width: 6 experts { layers: 2 experts_per_layer: 4 query_norm: NONE } }"
           "blocks { width: 5 batch_norm: false experts { layers: 2 experts_per_layer: 3 query_norm: NONE } }",
           {.batch_statistics = true, .routing_sums = true},
           kLosses},
      Case{"paper",
           "blocks { width: 6 experts { layers: 2 experts_per_layer: 4 routing_scale: PAPER query_norm: NONE } }"
           "blocks { width: 5 experts { layers: 2 experts_per_layer: 3 routing_scale: PAPER query_norm: NONE } }",
           {.batch_statistics = true, .routing_sums = true},
           kLosses},
      Case{"silu_dice",
           "blocks { width: 6 activation: SILU dropout: 0.3 experts { layers: 2 experts_per_layer: 3 } }"
           "blocks { width: 5 activation: DICE dropout: 0.2 } blocks { width: 4 batch_norm: false activation: DICE }",
           {.batch_statistics = true, .routing_sums = true, .dropout = true, .dropout_seed = 5, .step = 3},
           {}},
      Case{"silu_dice_frozen",
           "blocks { width: 6 activation: DICE } blocks { width: 5 batch_norm: false activation: SILU }",
           {},
           {}},
      Case{"projected_query",
           "blocks { width: 6 experts { layers: 3 experts_per_layer: 4 query_projection: LINEAR } }"
           "blocks { width: 5 experts { layers: 2 experts_per_layer: 4 top_k: 2 query_projection: LINEAR "
           "query_norm: NONE } }",
           {.batch_statistics = true, .routing_sums = true},
           kLosses},
      Case{"side_by_side",
           "blocks { width: 6 experts { layers: 3 experts_per_layer: 4 hierarchical: false } }"
           "blocks { width: 5 experts { layers: 2 experts_per_layer: 4 top_k: 2 hierarchical: false } }",
           {.batch_statistics = true, .routing_sums = true},
           kLosses},
      Case{"cross",
           "cross { experts { layers: 2 experts_per_layer: 3 } } cross { } cross { experts { layers: 2 "
           "experts_per_layer: 4 top_k: 2 } } blocks { width: 6 experts { layers: 2 experts_per_layer: 3 } }",
           {.batch_statistics = true, .routing_sums = true},
           kLosses},
      Case{"cross_alone", "cross { } cross { }", {}, {}},
      Case{"linear", "linear: true blocks { width: 6 }", {.batch_statistics = true}, {}},
      Case{"linear_alone", "linear: true", {}, {}},
      Case{"attention",
           std::string(kAttention) +
               "blocks { width: 6 experts { layers: 2 experts_per_layer: 3 } } cross { } linear: true",
           {.batch_statistics = true, .routing_sums = true},
           kLosses},
      Case{"sample_weights",
           "blocks { width: 6 experts { layers: 2 experts_per_layer: 4 top_k: 2 } } blocks { width: 5 }",
           {.batch_statistics = true, .routing_sums = true},
           kLosses,
           "",
           {1, 0, 2.5, 0.25, 1, 3, 0, 1, 0.5, 2, 1, 0, 1.5, 1, 0.75, 1, 2, 0.1, 1}},
      Case{"dropout",
           "blocks { width: 6 dropout: 0.3 experts { layers: 2 experts_per_layer: 3 } }"
           "blocks { width: 5 dropout: 0.2 activation: IDENTITY experts { layers: 2 experts_per_layer: 3 } }",
           {.batch_statistics = true, .routing_sums = true, .dropout = true, .dropout_seed = 5, .step = 3},
           kLosses}};
}

INSTANTIATE_TEST_SUITE_P(All, GradientTest, testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace hilomoe
