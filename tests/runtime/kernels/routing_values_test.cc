// Routing at special values: the exponential over its range, ties, exact cases, NaN and infinities.
#include <algorithm>
#include <numeric>

#include "tests/runtime/kernels/routing_case.h"

namespace hilomoe::kernels {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLeastExponent = -0x1.5d589ep6f;  // smallest float not below ln 2^-126

class RoutingValuesTest : public KernelTest {};

// Logits 0 and x give scores t and fl(t e), t = 1 / fl(1 + e): their quotient is the kernel's exponential e, rounded
// once (and once more by at most 2^-150 where it is denormal).
TEST_P(RoutingValuesTest, ExponentialIsWithinItsBoundDownToUnderflow) {
  constexpr int kRows = 1 << 16;
  RoutingCase test(1, 2, 0, kRows);
  for (int r = 0; r < kRows; ++r) {
    test.a.at(r, 0) = 0;
    // Half evenly over the range, half evenly over the exponents of x, down to 2^-25.
    test.a.at(r, 1) = r % 2 == 0 ? kLeastExponent * (r + 1) / kRows
                                 : std::max(kLeastExponent, -std::exp2(-25.0f + 31.5f * r / kRows));
  }
  test.a.at(0, 1) = kLeastExponent;
  test.Run(*kernels_);
  for (int r = 0; r < kRows; ++r) {
    const double exact = std::exp(static_cast<double>(test.a.at(r, 1)));
    const double quotient = static_cast<double>(test.scores.at(r, 1)) / test.scores.at(r, 0);
    const double bound = exact * ((1 + 0x1p-23) * (1 + kRoundoff) - 1) + 0x1p-149;
    ASSERT_NEAR(quotient, exact, bound) << "x " << test.a.at(r, 1);
  }
}

TEST_P(RoutingValuesTest, ExponentialIsZeroBelowTheNormalNumbers) {
  const float xs[] = {std::nextafter(kLeastExponent, -kInfinity), -88.0f, -104.0f, -1e4f, -3e38f, -kInfinity};
  RoutingCase test(1, 2, 0, 6);
  for (int r = 0; r < 6; ++r) {
    test.a.at(r, 0) = 0;
    test.a.at(r, 1) = xs[r];
  }
  test.Run(*kernels_);
  for (int r = 0; r < 6; ++r) {
    EXPECT_EQ(test.scores.at(r, 0), 1.0f);
    EXPECT_EQ(test.scores.at(r, 1), 0.0f) << "x " << xs[r];
  }
}

// Logits are 4000 times an integer - 200 i, i <= 16: never closer than 200, so that every score is exactly 0 or 1, and
// all arithmetic is on integers below 2^24, which no order of operations may round.
TEST_P(RoutingValuesTest, SaturatedRoutingIsExact) {
  constexpr int kLayers = 5;
  Random random(1);
  for (const int experts : {1, 5, 8, 16, 17}) {
    RoutingCase test(kLayers, experts, 0, 19);
    test.query_scale = 1000;
    test.logit_scale.Fill([] { return 4.0f; });
    test.FillGram([&] { return 1000 * random.Integer(experts); });
    test.a.Fill([&] { return random.Integer(8); });
    for (int c = 0; c < test.stack; ++c) test.logit_offset.at(0, c) = static_cast<float>(-200 * (c % experts));
    test.Run(*kernels_);
    test.CheckShape();
    for (int r = 0; r < test.rows; ++r) {
      std::vector<int> winners;  // of the layers done
      for (int layer = 0; layer < kLayers; ++layer) {
        std::vector<double> z(experts);
        for (int i = 0; i < experts; ++i) {
          const int c = layer * experts + i;
          double sum = 1000.0 * test.a.at(r, c);
          for (const int winner : winners) sum += test.gram.at(winner, c);
          z[i] = 4 * sum - 200 * i;
        }
        const int best = layer * experts + static_cast<int>(std::max_element(z.begin(), z.end()) - z.begin());
        for (int c = layer * experts; c < (layer + 1) * experts; ++c) {
          ASSERT_EQ(test.scores.at(r, c), c == best ? 1.0f : 0.0f) << "K " << experts << " row " << r << " at " << c;
          ASSERT_EQ(test.gated.at(r, c), c == best ? test.a.at(r, c) : 0.0f);
        }
        winners.push_back(best);
      }
    }
  }
}

// With G = 0 the logits are the integers in a, whose few values force ties everywhere; the oracle is a stable sort.
TEST_P(RoutingValuesTest, OfEqualLogitsTheLowerIndexIsKept) {
  Random random(2);
  for (const int experts : {3, 15, 16, 17, 33, 256}) {
    for (const int top_k : {2, 4, experts - 1}) {
      if (top_k >= experts) continue;
      for (const int magnitude : {0, 1, 5}) {
        RoutingCase test(3, experts, top_k, 37);
        test.a.Fill([&] {
          const float x = random.Integer(magnitude);
          return x == 0 && random.Below(2) == 0 ? -0.0f : x;  // -0 and 0 tie as well
        });
        test.logit_offset.Fill([] { return -0.0f; });  // the one offset that leaves a -0 in the logits
        test.Run(*kernels_);
        test.CheckShape();
        for (int r = 0; r < test.rows; ++r) {
          for (int layer = 0; layer < 3; ++layer) {
            const float* z = test.a.row(r) + layer * experts;
            std::vector<int> order(experts);
            std::iota(order.begin(), order.end(), 0);
            std::stable_sort(order.begin(), order.end(), [&](int i, int j) { return z[i] > z[j]; });
            std::sort(order.begin(), order.begin() + top_k);
            for (int j = 0; j < top_k; ++j) {
              ASSERT_EQ(test.index.at(r, layer * top_k + j), layer * experts + order[j])
                  << "K " << experts << " k " << top_k << " row " << r << " layer " << layer;
            }
            for (int i = 0; i < experts; ++i) {
              const bool kept = std::binary_search(order.begin(), order.begin() + top_k, i);
              ASSERT_EQ(test.scores.at(r, layer * experts + i) != 0.0f, kept);
            }
          }
        }
      }
    }
  }
}

// A NaN counts as larger than any number, several among themselves as equal: the lower index is kept.
TEST_P(RoutingValuesTest, NanIsKeptAndShows) {
  RoutingCase test(1, 18, 2, 4);
  test.a.Fill([] { return 1.0f; });
  test.a.at(0, 17) = kNan;
  test.a.at(1, 17) = -kNan;
  test.a.at(2, 3) = test.a.at(2, 9) = test.a.at(2, 12) = kNan;
  test.a.at(3, 4) = kInfinity;
  test.a.at(3, 16) = kNan;
  test.Run(*kernels_);
  test.CheckShape();
  const int expected[4][2] = {{0, 17}, {0, 17}, {3, 9}, {4, 16}};
  for (int r = 0; r < 4; ++r) {
    for (int j = 0; j < 2; ++j) {
      EXPECT_EQ(test.index.at(r, j), expected[r][j]) << "row " << r;
      EXPECT_TRUE(std::isnan(test.gated.at(r, j))) << "row " << r;
      EXPECT_TRUE(std::isnan(test.scores.at(r, expected[r][j]))) << "row " << r;
    }
    for (int i = 0; i < 18; ++i) {
      if (i == expected[r][0] || i == expected[r][1]) continue;
      EXPECT_EQ(test.scores.at(r, i), 0.0f) << "row " << r;
    }
  }
}

// Absurd rows among sound ones: theirs stay in range, and the sound rows keep their bits.
TEST_P(RoutingValuesTest, NonFiniteRowsHarmNoOther) {
  const float absurd[] = {kNan, -kNan, kInfinity, -kInfinity, 3e38f, -3e38f, 1e-45f};
  for (const int top_k : {0, 2, 4, 18}) {
    Random random(3);
    RoutingCase clean(3, 19, top_k, 34);
    clean.FillRandom(random);
    RoutingCase test(3, 19, top_k, 34);
    random = Random(3);
    test.FillRandom(random);
    for (int r = 1; r < 34; r += 2) {
      if (r % 4 == 1) {
        for (int c = 0; c < test.stack; ++c) test.a.at(r, c) = absurd[r < 8 ? r / 2 : random.Below(7)];
      } else {
        test.a.at(r, random.Below(19)) = absurd[random.Below(3)];
        test.inverse_norm.at(0, r) = absurd[random.Below(7)];
      }
    }
    clean.Run(*kernels_);
    test.Run(*kernels_);
    test.CheckShape();
    for (int r = 0; r < 34; r += 2) {
      ASSERT_EQ(std::memcmp(test.scores.row(r), clean.scores.row(r), test.stack * sizeof(float)), 0) << "row " << r;
      ASSERT_EQ(std::memcmp(test.gated.row(r), clean.gated.row(r), test.kept * sizeof(float)), 0) << "row " << r;
    }
    if (top_k == 0) {
      for (int c = 0; c < test.stack; ++c) ASSERT_TRUE(std::isnan(test.scores.at(1, c))) << "column " << c;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, RoutingValuesTest, testing::ValuesIn(kInstructionSets), InstructionSetName);

}  // namespace
}  // namespace hilomoe::kernels
