// One call of a routing kernel with all its operands, shared by the routing tests.
#ifndef HILOMOE_TESTS_RUNTIME_KERNELS_ROUTING_CASE_H_
#define HILOMOE_TESTS_RUNTIME_KERNELS_ROUTING_CASE_H_

#include <limits>

#include "tests/runtime/kernels/kernel_test.h"

namespace hilomoe::kernels {

struct RoutingCase {
  // Starts with alpha, tau and 1/norm 1, c and the read part of G 0, a unset.
  RoutingCase(int layers, int experts, int top_k, int rows)
      : layers(layers),
        experts(experts),
        top_k(top_k),
        rows(rows),
        stack(layers * experts),
        kept(layers * (top_k > 0 ? top_k : experts)),
        logit_scale(1, layers, 0),
        logit_offset(1, stack, 0),
        gram(stack, stack, 0),
        a(rows, stack, 5),
        other_r(rows, stack, 5),
        inverse_norm(1, rows, 0),
        gated(rows, kept, 3, kBehind),
        index(rows, kept, 2, kBehind),
        scores(rows, stack, 1, kBehind) {
    logit_scale.Fill([] { return 1.0f; });
    logit_offset.Fill([] { return 0.0f; });
    inverse_norm.Fill([] { return 1.0f; });
    FillGram([] { return 0.0f; });
  }

  // Only what later layers take from earlier ones: the others keep the sentinel's NaN, which shows if it is read.
  template <class F>
  void FillGram(F value) {
    for (int i = 0; i < stack; ++i) {
      for (int j = 0; j < i / experts * experts; ++j) gram.at(j, i) = value();
    }
  }

  // Everything random, logits of order 1. G shrinks with L: through unit entries a bound would grow fourfold a layer.
  void FillRandom(Random& random) {
    query_scale = 0.75f;
    logit_scale.Fill([&] { return 1.0f + 0.25f * random.Normal(); });
    logit_offset.Fill([&] { return 0.5f * random.Normal(); });
    FillGram([&] { return 3.0f / static_cast<float>(layers) * random.Uniform(); });
    a.Fill([&] { return random.Normal(); });
    other_r.Fill([&] { return random.Normal(); });
    inverse_norm.Fill([&] { return 1.0f + 0.1f * random.Normal(); });
  }

  void Run(const Kernels& kernels) {
    const Routing routing = {layers, experts, top_k, query_scale, logit_scale.data(), logit_offset.data(), gram.data()};
    float* score = with_scores ? scores.data() : nullptr;
    const float* r = with_r ? other_r.data() : nullptr;
    const float* norm = with_norm ? inverse_norm.data() : nullptr;
    if (top_k == 0) {
      kernels.route_dense(routing, rows, a.data(), r, a.leading(), norm, gated.data(), gated.leading(), score,
                          scores.leading());
    } else {
      kernels.route_top_k(routing, rows, a.data(), r, a.leading(), norm, gated.data(), gated.leading(), index.data(),
                          index.leading(), score, scores.leading());
    }
  }

  // What holds whatever the inputs: k indices of every layer's range, ascending, and nothing written elsewhere.
  void CheckShape() {
    ASSERT_TRUE(gated.OnlyShapeWritten());
    ASSERT_TRUE(scores.OnlyShapeWritten());
    ASSERT_TRUE(index.OnlyShapeWritten());
    if (top_k == 0) return;
    for (int r = 0; r < rows; ++r) {
      for (int j = 0; j < kept; ++j) {
        const int layer = j / top_k;
        const int lowest = j % top_k == 0 ? layer * experts : index.at(r, j - 1) + 1;
        ASSERT_GE(index.at(r, j), lowest) << "row " << r << " place " << j;
        ASSERT_LT(index.at(r, j), (layer + 1) * experts) << "row " << r << " place " << j;
      }
    }
  }

  int layers, experts, top_k, rows, stack, kept;
  float query_scale = 1;
  bool with_scores = true;
  bool with_norm = true;
  bool with_r = false;
  Matrix logit_scale, logit_offset, gram, a, other_r, inverse_norm;
  Matrix gated;
  IndexMatrix index;
  Matrix scores;
};

}  // namespace hilomoe::kernels

#endif  // HILOMOE_TESTS_RUNTIME_KERNELS_ROUTING_CASE_H_
