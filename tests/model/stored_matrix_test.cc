#include "model/stored_matrix.h"

#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace hilomoe {
namespace {

std::vector<float> StoreAndRead(Precision precision, const std::vector<float>& row) {
  std::vector<std::byte> bytes(2 * StoredRowBytes(precision, row.size()), std::byte{0x7f});
  StoreRow(precision, row, bytes.data() + StoredRowBytes(precision, row.size()));
  std::vector<float> out(row.size());
  StoredMatrix{precision, bytes.data(), 2, row.size()}.ReadRow(1, out.data());
  return out;
}

TEST(StoredMatrixTest, RowsTakeTheBytesThatAreStated) {
  EXPECT_EQ(StoredRowBytes(Precision::kFloat32, 5), 20u);
  EXPECT_EQ(StoredRowBytes(Precision::kBfloat16, 5), 10u);
  EXPECT_EQ(StoredRowBytes(Precision::kInt8, 5), 12u);
  EXPECT_EQ(StoredRowBytes(Precision::kInt8, 8), 12u);
}

TEST(StoredMatrixTest, Float32IsExact) {
  const std::vector<float> row = {0.1f, -3e-39f, 1e38f};
  EXPECT_EQ(StoreAndRead(Precision::kFloat32, row), row);
}

TEST(StoredMatrixTest, Bfloat16IsTheNearestTiesToEven) {
  const std::vector<float> row = {1.0f, 1.00390625f, 1.01171875f, -0.1f, 0.0f};
  const std::vector<float> expected = {1.0f, 1.0f, 1.015625f, -0.10009765625f, 0.0f};
  EXPECT_EQ(StoreAndRead(Precision::kBfloat16, row), expected);
}

TEST(StoredMatrixTest, Int8IsWithinHalfAStepAndTheLargestIsKept) {
  std::mt19937_64 engine(1);
  std::normal_distribution<float> normal;
  for (const size_t width : {1, 3, 4, 16, 129}) {
    std::vector<float> row(width);
    for (float& x : row) x = normal(engine);
    float largest = 0;
    for (const float x : row) largest = std::max(largest, std::fabs(x));
    const std::vector<float> stored = StoreAndRead(Precision::kInt8, row);
    for (size_t d = 0; d < width; ++d) {
      EXPECT_NEAR(stored[d], row[d], largest / 254 * 1.0001);
      if (std::fabs(row[d]) == largest) {
        EXPECT_FLOAT_EQ(stored[d], row[d]);
      }
    }
  }
  EXPECT_EQ(StoreAndRead(Precision::kInt8, {0, 0, 0}), std::vector<float>(3));
  EXPECT_EQ(StoreAndRead(Precision::kInt8, {1e-43f, -1e-43f}), std::vector<float>(2));
}

TEST(StoredMatrixTest, PartsAreTheRowsOwn) {
  for (const Precision precision : {Precision::kFloat32, Precision::kBfloat16, Precision::kInt8}) {
    const std::vector<float> row = {1, -2, 3, -4, 5};
    std::vector<std::byte> bytes(StoredRowBytes(precision, 5));
    StoreRow(precision, row, bytes.data());
    const StoredMatrix matrix{precision, bytes.data(), 1, 5};
    std::vector<float> whole(5), part(2);
    matrix.ReadRow(0, whole.data());
    matrix.ReadPart(0, 2, 2, part.data());
    EXPECT_EQ(part, (std::vector<float>{whole[2], whole[3]}));
  }
}

}  // namespace
}  // namespace hilomoe
