// Routing against the formulas of kernels.h in double, with bounds carried along the chain of layers.
#include <algorithm>
#include <numeric>

#include "tests/runtime/kernels/routing_case.h"

namespace hilomoe::kernels {
namespace {

constexpr double kExpError = 0x1p-23;  // promised in kernels.h
constexpr double kFlushed = 0x1p-125;  // what is lost where an exponential below 2^-126 becomes 0, or a denormal rounds

// One row in double: scores, their error bounds, and the kept experts.
struct Reference {
  std::vector<double> scores;
  std::vector<double> bounds;
  std::vector<int> kept;
  int decided_layers = 0;  // layers whose selection no admissible rounding can change
};

// Bounds. A logit is (m = known + 1 products and their sum, then tau, then c) with at most m + 4 roundings on a term:
//   |dz| <= gamma(m + 4) * (|tau| * (|alpha nu a| + sum |s G|) + |c|) + |tau| * sum ds |G|
// The softmax subtracts one and the same number from all logits, so its error cancels. With M = max |dz| and R the
// largest difference whose exponential is no 0, each exponent is off by at most M + u R and each exponential by
// kExpError more. A score is a quotient, whose parts may err in opposite ways; K additions, the reciprocal and the
// product round:
//   ds <= s * (exp(2 (M + u R)) * ((1 + kExpError) / (1 - kExpError)) * (1 + gamma(K + 3)) - 1) + kFlushed
Reference Route(RoutingCase& test, int r) {
  Reference ref;
  bool decided = true;
  for (int layer = 0; layer < test.layers; ++layer) {
    const int known = layer * test.experts;
    std::vector<double> z(test.experts);
    double max_dz = 0;
    for (int i = 0; i < test.experts; ++i) {
      const double nu = test.with_norm ? test.inverse_norm.at(0, r) : 1.0;
      double sum = static_cast<double>(test.query_scale) * nu * (test.with_r ? test.other_r : test.a).at(r, known + i);
      double magnitude = std::abs(sum);
      double carried = 0;
      for (int c = 0; c < known; ++c) {
        const double g = test.gram.at(c, known + i);
        sum += ref.scores[c] * g;
        magnitude += (ref.scores[c] + ref.bounds[c]) * std::abs(g);
        carried += ref.bounds[c] * std::abs(g);
      }
      const double tau = test.logit_scale.at(0, layer);
      const double offset = test.logit_offset.at(0, known + i);
      z[i] = tau * sum + offset;
      const double dz = Gamma(known + 5) * (std::abs(tau) * magnitude + std::abs(offset)) + std::abs(tau) * carried;
      max_dz = std::max(max_dz, dz);
    }

    std::vector<int> order(test.experts);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int i, int j) { return z[i] > z[j]; });
    const int k = test.top_k > 0 ? test.top_k : test.experts;
    if (k < test.experts && z[order[k - 1]] - z[order[k]] <= 2 * max_dz) decided = false;
    if (decided) ref.decided_layers = layer + 1;

    double total = 0, range = 0;
    ref.scores.resize(known + test.experts, 0.0);
    ref.bounds.resize(known + test.experts, 0.0);
    for (int n = 0; n < k; ++n) {
      const double x = z[order[n]] - z[order[0]];
      ref.scores[known + order[n]] = std::exp(x);
      total += std::exp(x);
      if (x > -104) range = std::max(range, -x);
    }
    const double relative = std::exp(2 * (max_dz + kRoundoff * range)) * ((1 + kExpError) / (1 - kExpError)) *
                                (1 + Gamma(test.experts + 3)) -
                            1;
    EXPECT_LT(relative, 0.02) << "a bound this wide proves nothing";
    std::sort(order.begin(), order.begin() + k);
    for (int n = 0; n < k; ++n) {
      const int i = known + order[n];
      ref.kept.push_back(i);
      ref.scores[i] /= total;
      ref.bounds[i] = ref.scores[i] * relative + kFlushed;
    }
  }
  return ref;
}

// Returns how many layers of how many rows were too close to a tie to be judged.
int Check(RoutingCase& test) {
  int undecided = 0;
  for (int r = 0; r < test.rows; ++r) {
    const Reference ref = Route(test, r);
    undecided += test.layers - ref.decided_layers;
    const int decided = ref.decided_layers * test.experts;
    for (int i = 0; i < decided && test.with_scores; ++i) {
      EXPECT_NEAR(test.scores.at(r, i), ref.scores[i], ref.bounds[i]) << "row " << r << " expert " << i;
    }
    for (int j = 0; j < ref.decided_layers * test.kept / test.layers; ++j) {
      const int i = ref.kept[j];
      if (test.top_k > 0) {
        EXPECT_EQ(test.index.at(r, j), i) << "row " << r << " place " << j;
      }
      // One more rounding, of the product.
      const double a = test.a.at(r, i);
      const double bound = std::abs(a) * (ref.bounds[i] + kRoundoff * (ref.scores[i] + ref.bounds[i])) + kFlushed;
      EXPECT_NEAR(test.gated.at(r, j), a * ref.scores[i], bound) << "row " << r << " place " << j;
    }
    if (testing::Test::HasFailure()) return undecided;
  }
  return undecided;
}

struct Size {
  int layers, experts;
};
constexpr Size kSizes[] = {{1, 1},  {3, 1},  {4, 2},  {2, 7},  {3, 8},  {2, 9},  {2, 15},
                           {4, 16}, {3, 17}, {2, 31}, {2, 33}, {8, 16}, {4, 64}, {9, 5}};
constexpr int kRows[] = {1, 2, 3, 4, 8, 15, 17, 18, 64};

class RoutingTest : public KernelTest {};

TEST_P(RoutingTest, DenseMatchesReference) {
  Random random(1);
  for (const Size size : kSizes) {
    for (const int rows : kRows) {
      SCOPED_TRACE(testing::Message() << "L " << size.layers << " K " << size.experts << " rows " << rows);
      RoutingCase test(size.layers, size.experts, 0, rows);
      test.FillRandom(random);
      test.with_norm = rows % 2 == 1;
      test.with_scores = rows != 4;
      test.with_r = rows % 5 == 0;
      test.Run(*kernels_);
      test.CheckShape();
      Check(test);
      if (HasFailure()) return;
    }
  }
}

TEST_P(RoutingTest, TopKMatchesReference) {
  Random random(2);
  for (const Size size : kSizes) {
    for (const int top_k : {2, 4, size.experts - 1}) {
      if (top_k < 2 || top_k >= size.experts) continue;
      int layers = 0, undecided = 0;
      for (const int rows : kRows) {
        SCOPED_TRACE(testing::Message() << "L " << size.layers << " K " << size.experts << " k " << top_k << " rows "
                                        << rows);
        RoutingCase test(size.layers, size.experts, top_k, rows);
        test.FillRandom(random);
        test.with_norm = rows % 2 == 1;
        test.with_scores = rows != 4;
        test.with_r = rows % 5 == 0;
        test.Run(*kernels_);
        test.CheckShape();
        undecided += Check(test);
        layers += rows * size.layers;
        if (HasFailure()) return;
      }
      EXPECT_LT(undecided, 1 + layers / 20) << "the test compares too little";
    }
  }
}

TEST_P(RoutingTest, MostExpertsAndMostLayers) {
  Random random(3);
  for (const Size size : {Size{8, kMaxExperts}, Size{kMaxStackedExperts / 64, 64}}) {
    for (const int top_k : {0, 8}) {
      for (const int rows : {1, 3}) {
        RoutingCase test(size.layers, size.experts, top_k, rows);
        test.FillRandom(random);
        test.Run(*kernels_);
        test.CheckShape();
        EXPECT_LT(Check(test), test.layers * rows);
        if (HasFailure()) return;
      }
    }
  }
}

TEST_P(RoutingTest, GatedMayReplaceA) {
  Random random(4);
  for (const Size size : kSizes) {
    RoutingCase test(size.layers, size.experts, 0, 21);
    test.FillRandom(random);
    Matrix in_place(21, test.stack, 4, kBehind);
    for (int r = 0; r < 21; ++r) std::copy_n(test.a.row(r), test.stack, in_place.row(r));
    test.Run(*kernels_);
    const Routing routing = {
        size.layers,     size.experts, 0, test.query_scale, test.logit_scale.data(), test.logit_offset.data(),
        test.gram.data()};
    kernels_->route_dense(routing, 21, in_place.data(), nullptr, in_place.leading(), test.inverse_norm.data(),
                          in_place.data(), in_place.leading(), nullptr, 0);
    ASSERT_TRUE(in_place.OnlyShapeWritten());
    ASSERT_TRUE(in_place == test.gated) << "L " << size.layers << " K " << size.experts;
  }
}

// Each row alone, among no neighbours, gives the bits that it has in the batch.
TEST_P(RoutingTest, RowsDoNotDependOnTheirPlaceInTheBatch) {
  Random random(5);
  for (const int top_k : {0, 4}) {
    RoutingCase batch(4, 19, top_k, 37);
    batch.FillRandom(random);
    batch.Run(*kernels_);
    for (int r = 0; r < 37; ++r) {
      RoutingCase one(4, 19, top_k, 1);
      one.query_scale = batch.query_scale;
      std::copy_n(batch.logit_scale.data(), 4, one.logit_scale.data());
      std::copy_n(batch.logit_offset.data(), one.stack, one.logit_offset.data());
      std::copy_n(batch.gram.data(), one.stack * one.stack, one.gram.data());
      std::copy_n(batch.a.row(r), one.stack, one.a.data());
      one.inverse_norm.at(0, 0) = batch.inverse_norm.at(0, r);
      one.Run(*kernels_);
      ASSERT_EQ(std::memcmp(one.scores.data(), batch.scores.row(r), one.stack * sizeof(float)), 0) << "row " << r;
      ASSERT_EQ(std::memcmp(one.gated.data(), batch.gated.row(r), one.kept * sizeof(float)), 0) << "row " << r;
      if (top_k > 0) {
        ASSERT_EQ(std::memcmp(one.index.data(), batch.index.row(r), one.kept * sizeof(int32_t)), 0) << "row " << r;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, RoutingTest, testing::ValuesIn(kInstructionSets), InstructionSetName);

}  // namespace
}  // namespace hilomoe::kernels
