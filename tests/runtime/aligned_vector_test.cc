#include "runtime/aligned_vector.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace hilomoe {
namespace {

template <class T>
bool BeginsLine(const AlignedVector<T>& vector) {
  return reinterpret_cast<uintptr_t>(vector.data()) % 64 == 0;
}

// malloc's blocks of every size would begin 16 or 48 behind a line now and then.
TEST(AlignedVectorTest, BeginsACacheLineWhateverItsSize) {
  std::vector<AlignedVector<float>> numbers;
  std::vector<AlignedVector<std::byte>> bytes;
  for (size_t n = 1; n < 2000; n += 7) {
    EXPECT_TRUE(BeginsLine(numbers.emplace_back(n, 1.0F))) << n;
    EXPECT_TRUE(BeginsLine(bytes.emplace_back(n))) << n;
  }
  for (const size_t n : {size_t{100'000}, size_t{262'144}, size_t{3'000'000}}) {
    const AlignedVector<float> large(n, 2.0F);
    EXPECT_TRUE(BeginsLine(large)) << n;
    EXPECT_EQ(large.back(), 2.0F);
  }
}

TEST(AlignedVectorTest, KeepsItsCellsWhereItGrowsAndMoves) {
  AlignedVector<int32_t> grown;
  for (int32_t i = 0; i < 600'000; ++i) grown.push_back(i);  // from lines to huge pages
  EXPECT_TRUE(BeginsLine(grown));
  for (int32_t i = 0; i < 600'000; ++i) ASSERT_EQ(grown[static_cast<size_t>(i)], i);
  const int32_t* const cells = grown.data();
  const AlignedVector<int32_t> moved = std::move(grown);
  EXPECT_EQ(moved.data(), cells);
}

TEST(AlignedVectorTest, WholeLinesHoldTheirFloats) {
  EXPECT_EQ(WholeLines(0), 0);
  EXPECT_EQ(WholeLines(1), 16);
  EXPECT_EQ(WholeLines(16), 16);
  EXPECT_EQ(WholeLines(17), 32);
}

}  // namespace
}  // namespace hilomoe
