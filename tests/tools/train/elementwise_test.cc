// The float loops, in whatever code the loader picked for this machine, against the double ones.
#include "tools/train/elementwise.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "tools/train/routing_lanes.h"

namespace hilomoe {
namespace {

constexpr size_t kRows = 37, kColumns = 45, kLd = 51;  // no multiple of any vector

std::vector<float> Normals(size_t n, uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<float> normal;
  std::vector<float> out(n);
  for (float& x : out) x = normal(engine);
  return out;
}
std::vector<double> Doubles(const std::vector<float>& x) { return {x.begin(), x.end()}; }

// Each element is a handful of operations on numbers of order 1.
constexpr double kBound = 16 * 0x1p-24 * 20;

TEST(ElementwiseTest, ExponentialsAreExponentials) {
  std::vector<float> x;
  for (int i = 0; i <= 20000; ++i) x.push_back(-100.0F * static_cast<float>(i) / 20000);
  std::vector<float> e = x;
  Exponentials(e.size(), e.data());
  for (size_t i = 0; i < x.size(); ++i) {
    const double expected = std::exp(static_cast<double>(x[i]));
    EXPECT_NEAR(e[i], x[i] < -87.33F ? 0 : expected, 2e-7 * expected) << x[i];
  }
  EXPECT_EQ(e[0], 1);
  float nan = NAN;
  Exponentials(1, &nan);
  EXPECT_TRUE(std::isnan(nan));
}

TEST(ElementwiseTest, LogarithmsAreLogarithms) {
  std::vector<float> x;
  for (int i = -80000; i <= 80000; ++i) x.push_back(std::exp(static_cast<float>(i) / 1000));
  std::vector<float> logarithm = x;
  Logarithms(logarithm.size(), logarithm.data());
  for (size_t i = 0; i < x.size(); ++i) {
    const double expected = std::log(static_cast<double>(x[i]));
    EXPECT_NEAR(logarithm[i], expected, 3e-7 * std::max(1.0, std::fabs(expected))) << x[i];
  }
  float nan = NAN;
  Logarithms(1, &nan);
  EXPECT_TRUE(std::isnan(nan));
}

TEST(ElementwiseTest, DotProductsEqualDouble) {
  const std::vector<float> x = Normals(kRows * kLd, 1), w = Normals(kColumns, 2);
  const std::vector<double> dx = Doubles(x), dw = Doubles(w);
  std::vector<float> norm(kRows), dot(kRows, 0.5F);
  std::vector<double> expected_norm(kRows), expected_dot(kRows, 0.5);
  SquaredNorms(kRows, kColumns, x.data(), kLd, norm.data());
  SquaredNorms(kRows, kColumns, dx.data(), kLd, expected_norm.data());
  AddDotProducts(kRows, kColumns, x.data(), kLd, w.data(), dot.data());
  AddDotProducts(kRows, kColumns, dx.data(), kLd, dw.data(), expected_dot.data());
  for (size_t r = 0; r < kRows; ++r) {
    double norm_of_row = 0, dot_of_row = 0.5;
    for (size_t d = 0; d < kColumns; ++d) {
      norm_of_row += dx[r * kLd + d] * dx[r * kLd + d];
      dot_of_row += dx[r * kLd + d] * dw[d];
    }
    EXPECT_NEAR(expected_norm[r], norm_of_row, 1e-12 * norm_of_row);
    EXPECT_NEAR(expected_dot[r], dot_of_row, 1e-12 * norm_of_row);
    EXPECT_NEAR(norm[r], norm_of_row, kColumns * 0x1p-24 * norm_of_row);
    EXPECT_NEAR(dot[r], dot_of_row, kColumns * 0x1p-24 * (norm_of_row + kColumns));
  }
}

TEST(ElementwiseTest, GathersRowsOfAnyWidth) {
  const std::vector<uint32_t> ids = {3, 0, 3, 1};
  for (const size_t n : {1, 8, 10, 11, 16, 32}) {
    const std::vector<float> table = Normals(4 * n, n);
    std::vector<float> out(ids.size() * (n + 2), -1);
    GatherEmbeddings(ids.size(), n, table.data(), ids.data(), out.data(), n + 2);
    for (size_t r = 0; r < ids.size(); ++r) {
      for (size_t j = 0; j < n; ++j) EXPECT_EQ(out[r * (n + 2) + j], table[ids[r] * n + j]);
      EXPECT_EQ(out[r * (n + 2) + n], -1);
    }
  }
}

TEST(RoutingLanesTest, FloatEqualsDouble) {
  for (const size_t K : {1, 7, 8, 19}) {
    const std::vector<float> m = Normals(K * 24, 1), x = Normals(24 * kLanes, 2), a = Normals(K * kLanes, 3);
    const std::vector<float> scale = Normals(kLanes, 4), c = Normals(K, 5), ds = Normals(K * kLanes, 6);
    std::vector<float> raw = Normals(K * kLanes, 7), z(K * kLanes), s(K * kLanes), dz(K * kLanes), total(kLanes);
    std::vector<double> draw = Doubles(raw), ez(K * kLanes), es(K * kLanes), edz(K * kLanes), etotal(kLanes);
    AddProductLanes(K, 24, m.data(), 24, 1, x.data(), raw.data());
    LogitLanes(K, scale.data(), a.data(), 1.5F, c.data(), raw.data(), z.data());
    SoftmaxLanes(K, z.data(), s.data(), total.data());
    SoftmaxBackwardLanes(K, s.data(), ds.data(), dz.data());
    AddProductLanes(K, 24, Doubles(m).data(), 24, 1, Doubles(x).data(), draw.data());
    LogitLanes(K, Doubles(scale).data(), Doubles(a).data(), 1.5, Doubles(c).data(), draw.data(), ez.data());
    SoftmaxLanes(K, ez.data(), es.data(), etotal.data());
    SoftmaxBackwardLanes(K, es.data(), Doubles(ds).data(), edz.data());
    for (size_t i = 0; i < K * kLanes; ++i) {
      EXPECT_NEAR(z[i], ez[i], 1e-4);
      EXPECT_NEAR(s[i], es[i], 1e-5);
      EXPECT_NEAR(dz[i], edz[i], 1e-4);
    }
    for (size_t r = 0; r < kLanes; ++r) {
      double sum = 0;
      for (size_t i = 0; i < K; ++i) sum += std::exp(ez[i * kLanes + r]);
      EXPECT_NEAR(etotal[r], std::log(sum), 1e-12 * (1 + std::fabs(etotal[r])));
      EXPECT_NEAR(total[r], etotal[r], 1e-4);
    }
    std::vector<float> lanes(K * kLanes, NAN), rows(13 * K);
    RowsToLanes(13, K, a.data(), K, lanes.data());
    LanesToRows(13, K, lanes.data(), rows.data(), K);
    EXPECT_EQ(rows, std::vector<float>(a.begin(), a.begin() + static_cast<ptrdiff_t>(rows.size())));
    for (size_t i = 0; i < K; ++i) EXPECT_EQ(lanes[i * kLanes + 13], 0);
  }
}

TEST(ElementwiseTest, ForwardEqualsDouble) {
  const std::vector<float> z = Normals(kRows * kLd, 1), scale = Normals(kColumns, 2), shift = Normals(kColumns, 3);
  const std::vector<double> dz = Doubles(z), dscale = Doubles(scale), dshift = Doubles(shift);
  for (const bool relu : {false, true}) {
    for (const float rate : {0.0F, 0.3F}) {
      const DropoutMask dropout(rate, 1, 2, 3);
      std::vector<float> out(kRows * kColumns, NAN);
      std::vector<double> expected(out.size(), NAN);
      Normalise(kRows, kColumns, z.data(), kLd, scale.data(), shift.data(), relu, dropout, 90, out.data());
      Normalise(kRows, kColumns, dz.data(), kLd, dscale.data(), dshift.data(), relu, dropout, 90, expected.data());
      size_t zeros = 0;
      for (size_t i = 0; i < out.size(); ++i) {
        EXPECT_NEAR(out[i], expected[i], kBound);
        zeros += out[i] == 0;
      }
      const double share = 1 - (1 - static_cast<double>(rate)) * (relu ? 0.5 : 1);
      EXPECT_NEAR(static_cast<double>(zeros) / static_cast<double>(out.size()), share, 0.06);
    }
  }
  std::vector<double> sum(kColumns), squared(kColumns), dsum(kColumns), dsquared(kColumns);
  AddColumnSums(kRows, kColumns, z.data(), kLd, sum.data(), squared.data());
  AddColumnSums(kRows, kColumns, dz.data(), kLd, dsum.data(), dsquared.data());
  for (size_t c = 0; c < kColumns; ++c) {
    EXPECT_NEAR(sum[c], dsum[c], 1e-12);
    EXPECT_NEAR(squared[c], dsquared[c], 1e-12);
  }
}

TEST(ElementwiseTest, BackwardEqualsDouble) {
  const std::vector<float> z = Normals(kRows * kLd, 1), dout = Normals(kRows * kColumns, 2),
                           out = Normals(kRows * kColumns, 3), scale = Normals(kColumns, 4),
                           centre = Normals(kColumns, 5), a = Normals(kColumns, 6), b = Normals(kColumns, 7);
  const std::vector<double> z2 = Doubles(z), dout2 = Doubles(dout), out2 = Doubles(out), scale2 = Doubles(scale),
                            centre2 = Doubles(centre), a2 = Doubles(a), b2 = Doubles(b);
  std::vector<float> dz(kRows * kLd, 7);
  std::vector<double> dz2(dz.size(), 7);
  ReluBackward(kRows, kColumns, out.data(), dout.data(), 1.25F, dz.data(), kLd);
  ReluBackward(kRows, kColumns, out2.data(), dout2.data(), 1.25, dz2.data(), kLd);
  std::vector<double> sum(kColumns), normalised(kColumns), sum2(kColumns), normalised2(kColumns);
  AddBackwardSums(kRows, kColumns, z.data(), dz.data(), kLd, centre.data(), scale.data(), sum.data(),
                  normalised.data());
  AddBackwardSums(kRows, kColumns, z2.data(), dz2.data(), kLd, centre2.data(), scale2.data(), sum2.data(),
                  normalised2.data());
  // Both passes in one.
  std::vector<float> fused(dz.size(), 7);
  std::vector<double> fused_sum(kColumns), fused_normalised(kColumns);
  ReluBackwardSums(kRows, kColumns, out.data(), dout.data(), 1.25F, z.data(), fused.data(), kLd, centre.data(),
                   scale.data(), fused_sum.data(), fused_normalised.data());
  EXPECT_EQ(fused, dz);
  for (size_t c = 0; c < kColumns; ++c) {
    EXPECT_NEAR(fused_sum[c], sum2[c], kRows * kBound);
    EXPECT_NEAR(fused_normalised[c], normalised2[c], kRows * kBound);
  }
  NormaliseBackward(kRows, kColumns, z.data(), kLd, scale.data(), centre.data(), a.data(), b.data(), dz.data());
  NormaliseBackward(kRows, kColumns, z2.data(), kLd, scale2.data(), centre2.data(), a2.data(), b2.data(), dz2.data());
  for (size_t i = 0; i < dz.size(); ++i) EXPECT_NEAR(dz[i], dz2[i], kBound) << i;
  EXPECT_EQ(dz[kColumns], 7);  // between the rows
  for (size_t c = 0; c < kColumns; ++c) {
    EXPECT_NEAR(sum[c], sum2[c], kRows * kBound);
    EXPECT_NEAR(normalised[c], normalised2[c], kRows * kBound);
  }
}

// The mask's elements are independent of how a range is cut, and close to the rate.
TEST(ElementwiseTest, DropoutDependsOnTheElementAlone) {
  const DropoutMask dropout(0.2F, 5, 6, 7);
  std::vector<float> whole(10000, 1), parts(whole.size(), 1);
  ApplyDropout(whole.size(), dropout, 0, whole.data());
  for (size_t begin = 0; begin < parts.size(); begin += 333) {
    ApplyDropout(std::min<size_t>(333, parts.size() - begin), dropout, begin, parts.data() + begin);
  }
  EXPECT_EQ(whole, parts);
  EXPECT_NEAR(static_cast<double>(std::count(whole.begin(), whole.end(), 0.0F)), 2000, 5 * 40);
  std::vector<float> other(whole.size(), 1);
  ApplyDropout(other.size(), DropoutMask(0.2F, 5, 7, 7), 0, other.data());
  size_t both = 0;
  for (size_t i = 0; i < other.size(); ++i) both += whole[i] == 0 && other[i] == 0;
  EXPECT_NEAR(static_cast<double>(both), 400, 5 * 20);  // steps are independent
}

}  // namespace
}  // namespace hilomoe
