// Products with packed weights: every precision and instruction set against sums in double over the same rounded
// operands; and the rounding of rows against its definition.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "tests/runtime/kernels/kernel_test.h"

namespace hilomoe::kernels {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr Precision kPrecisions[] = {Precision::kFloat32, Precision::kBfloat16, Precision::kInt8};

float FromBits(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

float FromBfloat16(uint16_t half) { return FromBits(uint32_t{half} << 16); }

// A row's columns as a kernel packed them.
double Value(Precision precision, const uint32_t* cells, int column, double scale, bool weight) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(cells);
  if (precision == Precision::kFloat32) {
    float x;
    std::memcpy(&x, bytes + 4 * column, sizeof(x));
    return x;
  }
  if (precision == Precision::kBfloat16) {
    uint16_t half;
    std::memcpy(&half, bytes + 2 * column, sizeof(half));
    return FromBfloat16(half);
  }
  return weight ? scale * static_cast<int8_t>(bytes[column]) : scale * (bytes[column] - 128);
}

struct alignas(64) Line {
  uint32_t cells[kPanelOutputs];
};

// A packed weight of random cells, and what they stand for.
struct Weight {
  Weight(Precision precision_, int outputs, int columns, Random& random)
      : precision(precision_),
        per_cell(ColumnsPerCell(precision_)),
        layout(precision_, outputs, columns),
        values(static_cast<size_t>(outputs) * static_cast<size_t>(columns)),
        lines(layout.size() / kPanelOutputs),
        packed{layout, reinterpret_cast<uint32_t*>(lines.data())} {
    for (int o = 0; o < outputs; ++o) {
      const float scale = 0.01f * (2 + random.Uniform());
      int32_t offset = 0;
      for (int d = 0; d < columns; ++d) {
        auto* byte = reinterpret_cast<unsigned char*>(Cell(o, d / per_cell)) + d % per_cell * (4 / per_cell);
        double& value = values[static_cast<size_t>(o * columns + d)];
        if (precision == Precision::kInt8) {
          const auto q = static_cast<int8_t>(random.Below(255) - 127);
          *byte = static_cast<unsigned char>(q);
          offset += 128 * q;
          value = static_cast<double>(scale) * q;
        } else {
          const float x = random.Normal();
          uint32_t bits;
          std::memcpy(&bits, &x, sizeof(bits));
          if (precision == Precision::kBfloat16) bits >>= 16;  // any bfloat16 will do
          std::memcpy(byte, &bits, static_cast<size_t>(4 / per_cell));
          value = precision == Precision::kBfloat16 ? FromBfloat16(static_cast<uint16_t>(bits)) : x;
        }
      }
      if (precision == Precision::kInt8) SetOffsetAndScale(o, offset, scale);
    }
  }

  void SetOffsetAndScale(int output, int32_t offset, float scale) {
    std::memcpy(Cell(output, layout.cells), &offset, sizeof(offset));
    std::memcpy(Cell(output, layout.cells + 1), &scale, sizeof(scale));
  }
  uint32_t* Cell(int output, int step) { return reinterpret_cast<uint32_t*>(lines.data()) + layout.Cell(output, step); }

  Precision precision;
  int per_cell;
  PackedLayout layout;
  std::vector<double> values;  // [outputs, columns]
  std::vector<Line> lines;
  PackedWeight packed;
};

using CellMatrix = GuardedMatrix<uint32_t>;

class ProductTest : public KernelTest {
 protected:
  // x as the kernels take it; of kFloat32 x itself.
  PackedRows Pack(Precision precision, int rows, int columns, Matrix& x, CellMatrix& cells,
                  std::vector<float>& scale) const {
    if (precision == Precision::kFloat32) return {x.data(), x.leading(), nullptr};
    if (precision == Precision::kBfloat16) {
      kernels_->round_to_bfloat16(rows, columns, x.data(), x.leading(), cells.data(), cells.leading());
    } else {
      kernels_->quantise(rows, columns, x.data(), x.leading(), nullptr, cells.data(), cells.leading(), scale.data());
    }
    EXPECT_TRUE(cells.OnlyShapeWritten());
    return {cells.data(), cells.leading(), scale.data()};
  }

  void Check(Precision precision, int rows, int outputs, int columns) {
    SCOPED_TRACE(testing::Message() << "precision " << static_cast<int>(precision) << ": " << rows << " x " << columns
                                    << " to " << outputs);
    Random random(7);
    Weight weight(precision, outputs, columns, random);
    Matrix x(rows, columns, 3), add(rows, outputs, 2), bias(1, outputs, 0);
    CellMatrix cells(rows, weight.layout.cells, 1);
    std::vector<float> scale(static_cast<size_t>(rows));
    x.Fill([&] { return random.Normal(); });
    add.Fill([&] { return random.Normal(); });
    bias.Fill([&] { return random.Normal(); });
    const PackedRows packed = Pack(precision, rows, columns, x, cells, scale);
    const ProductStore stores[] = {{},
                                   {add.data(), add.leading(), bias.data(), Activation::kRelu},
                                   {add.data(), 0, nullptr, Activation::kIdentity}};
    for (const ProductStore& store : stores) {
      Matrix y(rows, outputs, 5, kBehind);
      kernels_->product[static_cast<int>(precision)](weight.packed, rows, packed, store, y.data(), y.leading());
      ASSERT_TRUE(y.OnlyShapeWritten());
      for (int r = 0; r < rows; ++r) {
        for (int o = 0; o < outputs; ++o) {
          double sum = 0, magnitude = 0;
          for (int d = 0; d < columns; ++d) {
            const auto* row = static_cast<const uint32_t*>(packed.data) + static_cast<ptrdiff_t>(r) * packed.ld;
            const double term = Value(precision, row, d, scale[static_cast<size_t>(r)], false) *
                                weight.values[static_cast<size_t>(o * columns + d)];
            sum += term;
            magnitude += std::abs(term);
          }
          for (const float* more : {store.add == nullptr ? nullptr : store.add + r * store.ldadd + o,
                                    store.bias == nullptr ? nullptr : store.bias + o}) {
            if (more == nullptr) continue;
            sum += *more;
            magnitude += std::abs(*more);
          }
          if (store.activation == Activation::kRelu) sum = std::max(sum, 0.0);
          // A term is touched by its product and the additions that follow; int8 sums are exact, their conversion and
          // two scales are not. bfloat16 products are exact in float32, and sums that lose denormals far below this.
          ASSERT_NEAR(y.at(r, o), sum, Gamma(columns + 5) * magnitude + 1e-30) << "row " << r << " output " << o;
        }
      }
      for (int r = 0; r < rows; ++r) {  // alone it has the same bits
        std::vector<float> alone(static_cast<size_t>(outputs));
        ProductStore its = store;
        if (its.add != nullptr) its.add += r * its.ldadd;
        const PackedRows row{static_cast<const uint32_t*>(packed.data) + static_cast<ptrdiff_t>(r) * packed.ld,
                             packed.ld, scale.data() + r};
        kernels_->product[static_cast<int>(precision)](weight.packed, 1, row, its, alone.data(), outputs);
        ASSERT_EQ(std::memcmp(alone.data(), y.row(r), alone.size() * sizeof(float)), 0) << "row " << r;
      }
    }
  }
};

TEST(PackedLayoutTest, OutputsAndStepsHaveCellsOfTheirOwn) {
  for (const Precision precision : kPrecisions) {
    for (const int panels : {0, 1, 2, 4, 5, 8, 9, 11, 17, 29, 41}) {
      const PackedLayout layout(precision, panels * kPanelOutputs - (panels > 0 ? 3 : 0), 9);
      ASSERT_EQ(layout.panels, panels);
      std::vector<int> used(layout.size());
      for (int o = 0; o < layout.outputs; ++o) {
        for (int step = 0; step < layout.steps; ++step) {
          ASSERT_LT(layout.Cell(o, step), used.size());
          ++used[layout.Cell(o, step)];
        }
      }
      EXPECT_EQ(std::count(used.begin(), used.end(), 1), layout.outputs * layout.steps) << panels;
    }
  }
}

TEST(PackedLayoutTest, EveryPanelIsInOneGroupThatIsNotTooNarrow) {
  for (int panels = 1; panels <= 40; ++panels) {
    const PackedLayout layout(Precision::kFloat32, panels * kPanelOutputs, 1);
    for (int panel = 0; panel < panels;) {
      const PanelGroup group = layout.Group(panel);
      ASSERT_EQ(group.first, panel) << "of " << panels;
      ASSERT_GE(group.count, panels == 1 ? 1 : 2) << panel << " of " << panels;
      ASSERT_LE(group.count, kGroupPanels) << panel << " of " << panels;
      for (; panel < group.first + group.count; ++panel) {
        const PanelGroup same = layout.Group(panel);
        ASSERT_TRUE(same.first == group.first && same.count == group.count) << panel << " of " << panels;
      }
      ASSERT_LE(panel, panels);
    }
  }
}

TEST_P(ProductTest, EqualsSumsInDoubleAndARowDependsOnItselfAlone) {
  for (const Precision precision : kPrecisions) {
    for (const int rows : {1, 2, 3, 4, 5, 6, 7, 8, 13, 64}) {
      for (const int outputs : {1, 15, 16, 17, 48, 100, 113, 144, 193, 272}) {
        for (const int columns : {0, 1, 2, 3, 4, 7, 31, 64}) Check(precision, rows, outputs, columns);
      }
    }
    Check(precision, 64, 464, 624);
    // A row of one to five whole groups, with and without more after them, the last output's panel full or not.
    for (const int outputs : {256, 464, 512, 640, 700, 761}) Check(precision, 1, outputs, 9);
  }
}

TEST_P(ProductTest, AddsToYInPlace) {
  Random random(8);
  for (const Precision precision : kPrecisions) {
    Weight weight(precision, 37, 20, random);
    Matrix x(9, 20, 0), y(9, 37, 0), before(9, 37, 0), apart(9, 37, 0);
    CellMatrix cells(9, weight.layout.cells, 0);
    std::vector<float> scale(9);
    x.Fill([&] { return random.Normal(); });
    before.Fill([&] { return random.Normal(); });
    std::memcpy(y.data(), before.data(), 9 * 37 * sizeof(float));
    const PackedRows packed = Pack(precision, 9, 20, x, cells, scale);
    const ProductFunction product = kernels_->product[static_cast<int>(precision)];
    product(weight.packed, 9, packed, {y.data(), 37}, y.data(), 37);
    product(weight.packed, 9, packed, {before.data(), 37}, apart.data(), 37);
    EXPECT_TRUE(y == apart);
  }
}

// Sums of bytes do not saturate on their way.
TEST_P(ProductTest, LargestInt8sAreExact) {
  constexpr int kColumns = 4096;
  Random random(11);
  Weight weight(Precision::kInt8, 16, kColumns, random);
  for (const int8_t w : {127, -127, -128}) {
    std::memset(weight.lines.data(), w, 16 * kColumns);
    for (int o = 0; o < 16; ++o) weight.SetOffsetAndScale(o, 128 * w * kColumns, 1);
    const std::vector<uint32_t> cells(kColumns / 4, 0xffffffff);  // 255 - 128 = 127
    const float scale = 1;
    float y[16];
    kernels_->product[static_cast<int>(Precision::kInt8)](weight.packed, 1, {cells.data(), kColumns / 4, &scale}, {}, y,
                                                          16);
    for (const float value : y) EXPECT_EQ(value, 127.0f * static_cast<float>(w) * kColumns);
  }
}

TEST_P(ProductTest, RoundsToTheNearestBfloat16) {
  const float values[] = {0.0f,
                          -0.0f,
                          1.0f,
                          -3.140625f,
                          1.00390625f /* tie, down to even */,
                          1.01171875f /* tie, up */,
                          1.0039064f,
                          3e38f,
                          3.4e38f /* to infinity */,
                          kInfinity,
                          -kInfinity,
                          1e-40f,
                          0.1f,
                          FromBits(0x7fffffff),
                          FromBits(0xffffffff),
                          FromBits(0x7f800001)};
  const uint16_t expected[] = {
      0x0000, 0x8000, 0x3f80, 0xc049, 0x3f80, 0x3f82, 0x3f81, 0x7f62, 0x7f80,
      0x7f80, 0xff80, 0x0001, 0x3dcd, 0x7fc0, 0x7fc0, 0x7fc0 /* NaNs whose bits would round to 0 or infinity */};
  constexpr int kCount = std::size(values);
  // The instruction that rounds takes a subnormal for zero, as the one that multiplies does.
  const bool subnormal_is_zero = kernels_->instruction_set == InstructionSet::kAvx512Bf16;
  const auto expected_of = [&](int i) { return subnormal_is_zero && expected[i] == 0x0001 ? 0 : expected[i]; };
  for (int width = 1; width <= 70; ++width) {
    Matrix x(2, width, 1);
    CellMatrix cells(2, (width + 1) / 2, 2);
    int i = 0;
    x.Fill([&] { return values[i++ % kCount]; });
    kernels_->round_to_bfloat16(2, width, x.data(), x.leading(), cells.data(), cells.leading());
    ASSERT_TRUE(cells.OnlyShapeWritten());
    for (int r = 0; r < 2; ++r) {
      for (int d = 0; d < width + width % 2; ++d) {
        uint16_t half;
        std::memcpy(&half, reinterpret_cast<char*>(cells.row(r)) + 2 * d, sizeof(half));
        if (d < width && std::isnan(x.at(r, d))) {  // which one is the instruction's choice
          ASSERT_TRUE((half & 0x7f80) == 0x7f80 && (half & 0x7f) != 0) << half;
          continue;
        }
        ASSERT_EQ(half, d < width ? expected_of((r * width + d) % kCount) : 0) << x.at(r, d);
      }
    }
  }
}

TEST_P(ProductTest, RoundsPairsOfRows) {
  Random random(10);
  for (const int rows : {1, 2, 7}) {
    for (int width = 1; width <= 40; ++width) {
      Matrix x(rows, width, 1), transposed(width, rows, 3);
      x.Fill([&] { return random.Normal(); });
      for (int r = 0; r < rows; ++r) {
        for (int d = 0; d < width; ++d) transposed.at(d, r) = x.at(r, d);
      }
      CellMatrix cells((rows + 1) / 2, width, 2), expected(width, (rows + 1) / 2, 0);
      kernels_->pair_to_bfloat16(rows, width, x.data(), x.leading(), cells.data(), cells.leading());
      kernels_->round_to_bfloat16(width, rows, transposed.data(), transposed.leading(), expected.data(),
                                  expected.leading());
      ASSERT_TRUE(cells.OnlyShapeWritten());
      for (int p = 0; p < (rows + 1) / 2; ++p) {
        for (int d = 0; d < width; ++d) ASSERT_EQ(cells.row(p)[d], expected.row(d)[p]) << p << ", " << d;
      }
    }
  }
}

TEST_P(ProductTest, QuantisesByTheLargestOfARow) {
  Random random(9);
  for (int width = 1; width <= 70; ++width) {
    Matrix x(3, width, 1);
    CellMatrix cells(3, (width + 3) / 4, 2);
    std::vector<float> scale(3);
    x.Fill([&] { return random.Normal(); });
    for (int d = 0; d < width; ++d) x.at(1, d) = 0;
    Matrix factor(1, width, 0);
    factor.Fill([&] { return random.Uniform(); });
    for (const float* columns : {static_cast<const float*>(nullptr), static_cast<const float*>(factor.data())}) {
      kernels_->quantise(3, width, x.data(), x.leading(), columns, cells.data(), cells.leading(), scale.data());
      ASSERT_TRUE(cells.OnlyShapeWritten());
      const auto expected = [&](int r, int d) { return x.at(r, d) * (columns != nullptr ? columns[d] : 1); };
      for (int r = 0; r < 3; ++r) {
        float largest = 0;
        for (int d = 0; d < width; ++d) largest = std::max(largest, std::abs(expected(r, d)));
        ASSERT_FLOAT_EQ(scale[static_cast<size_t>(r)], largest / 127);
        for (int d = 0; d < (width + 3) / 4 * 4; ++d) {
          const double value = Value(Precision::kInt8, cells.row(r), d, scale[static_cast<size_t>(r)], false);
          ASSERT_NEAR(value, d < width ? expected(r, d) : 0, largest / 254 * 1.00001) << width << " " << d;
        }
      }
    }
  }
}

// A number that is none, or infinite, shows in its row and in no other.
TEST_P(ProductTest, WhatIsNotFiniteShows) {
  Random random(10);
  for (const Precision precision : kPrecisions) {
    for (const float bad : {kNan, kInfinity, -kInfinity}) {
      for (int column = 0; column < 37; ++column) {
        Weight weight(precision, 20, 37, random);
        Matrix x(3, 37, 0), y(3, 20, 0);
        CellMatrix cells(3, weight.layout.cells, 0);
        std::vector<float> scale(3);
        x.Fill([&] { return random.Normal(); });
        x.at(1, column) = bad;
        const PackedRows packed = Pack(precision, 3, 37, x, cells, scale);
        kernels_->product[static_cast<int>(precision)](weight.packed, 3, packed, {}, y.data(), y.leading());
        for (int o = 0; o < 20; ++o) {
          EXPECT_TRUE(std::isfinite(y.at(0, o)) && std::isfinite(y.at(2, o)));
          EXPECT_FALSE(std::isfinite(y.at(1, o))) << bad << " in " << column << " to " << o;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, ProductTest, testing::ValuesIn(kInstructionSets), InstructionSetName);

}  // namespace
}  // namespace hilomoe::kernels
