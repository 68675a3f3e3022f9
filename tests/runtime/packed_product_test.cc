// Packing against plain loops in double over what is stored; the kernels have tests of their own.
#include "runtime/packed_product.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace hilomoe {
namespace {

constexpr Precision kPrecisions[] = {Precision::kFloat32, Precision::kBfloat16, Precision::kInt8};

std::vector<float> Numbers(size_t n, uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<float> normal;
  std::vector<float> numbers(n);
  for (float& x : numbers) x = normal(engine);
  return numbers;
}

// A stored matrix with its bytes.
struct Stored {
  Stored(Precision precision, size_t rows, size_t columns) : bytes(rows * StoredRowBytes(precision, columns)) {
    const std::vector<float> values = Numbers(rows * columns, 1);
    for (size_t r = 0; r < rows; ++r) {
      StoreRow(precision, {&values[r * columns], columns}, &bytes[r * StoredRowBytes(precision, columns)]);
    }
    matrix = {precision, bytes.data(), rows, columns};
  }
  double At(size_t r, size_t c) const {
    std::vector<float> row(matrix.columns);
    matrix.ReadRow(r, row.data());
    return row[c];
  }

  std::vector<std::byte> bytes;
  StoredMatrix matrix;
};

// Activations are rounded by at most 2^-8 (bfloat16) or half a step of the row's largest / 127 (int8), after they were
// multiplied by the scales of a transposed int8 weight.
double Relative(Precision precision) { return precision == Precision::kFloat32 ? 0x1p-24 : 0x1p-8; }

void Check(Precision precision, size_t rows, size_t columns, size_t first, size_t count, bool transposed) {
  SCOPED_TRACE(testing::Message() << static_cast<int>(precision) << ": " << rows << " x " << columns << ", " << first
                                  << " + " << count << (transposed ? ", transposed" : ""));
  const Stored stored(precision, rows, columns);
  const PackedProduct product(stored.matrix, first, count, transposed);
  const size_t outputs = transposed ? columns : rows;
  const bool int8 = precision == Precision::kInt8;
  ASSERT_EQ(static_cast<size_t>(product.outputs()), outputs);
  constexpr int kRows = 5;
  const std::vector<float> x = Numbers(kRows * (count + 1), 2);
  std::vector<float> y(kRows * outputs, NAN);
  std::vector<std::byte> scratchpad(product.scratchpad_bytes());
  product.Run(kernels::SelectKernels(), kRows, x.data(), static_cast<int>(count) + 1, {}, y.data(),
              static_cast<int>(outputs), scratchpad.data());
  for (size_t r = 0; r < kRows; ++r) {
    const auto scale = [&](size_t d) { return int8 && transposed ? stored.matrix.Scale(first + d) : 1.0F; };
    double largest = 0;
    for (size_t d = 0; d < count; ++d)
      largest = std::max<double>(largest, std::fabs(x[r * (count + 1) + d] * scale(d)));
    for (size_t o = 0; o < outputs; ++o) {
      double sum = 0, bound = 0;
      for (size_t d = 0; d < count; ++d) {
        const double w = transposed ? stored.At(first + d, o) : stored.At(o, first + d);
        const double term = x[r * (count + 1) + d] * w;
        sum += term;
        bound += int8 ? std::fabs(w) * largest / 254 / scale(d) : std::fabs(term) * Relative(precision);
        bound += std::fabs(term) * static_cast<double>(count + 5) * 0x1p-23;
      }
      ASSERT_NEAR(y[r * outputs + o], sum, bound * 1.01) << r << " " << o;
    }
  }
}

TEST(PackedProductTest, EqualsWhatIsStored) {
  for (const Precision precision : kPrecisions) {
    Check(precision, 33, 50, 0, 50, false);
    Check(precision, 33, 50, 17, 33, false);
    Check(precision, 33, 50, 0, 17, false);
    Check(precision, 464, 400, 0, 400, false);
    Check(precision, 3, 5, 5, 0, false);
    Check(precision, 64, 400, 0, 64, true);
    Check(precision, 7, 13, 0, 7, true);
    Check(precision, 7, 13, 2, 3, true);
  }
}

TEST(PackedProductTest, CopiesTheWeight) {
  for (const Precision precision : kPrecisions) {
    Stored stored(precision, 20, 30);
    const PackedProduct product(stored.matrix, 0, 30);
    const std::vector<float> x = Numbers(30, 3);
    std::vector<float> before(20), after(20);
    std::vector<std::byte> scratchpad(product.scratchpad_bytes());
    const auto run = [&](std::vector<float>& y) {
      product.Run(kernels::SelectKernels(), 1, x.data(), 30, {}, y.data(), 20, scratchpad.data());
    };
    run(before);
    std::fill(stored.bytes.begin(), stored.bytes.end(), std::byte{0x55});
    run(after);
    EXPECT_EQ(before, after);
  }
}

TEST(PackedProductTest, RunsOnManyThreads) {
  const Stored stored(Precision::kInt8, 100, 60);
  const PackedProduct product(stored.matrix, 0, 60);
  const std::vector<float> x = Numbers(kTileRows * 60, 4);
  std::vector<std::vector<float>> y(4, std::vector<float>(kTileRows * 100));
  std::vector<std::thread> threads;
  for (std::vector<float>& out : y) {
    threads.emplace_back([&] {
      std::vector<std::byte> scratchpad(product.scratchpad_bytes());
      for (int i = 0; i < 20; ++i) {
        product.Run(kernels::SelectKernels(), kTileRows, x.data(), 60, {}, out.data(), 100, scratchpad.data());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::vector<float>& out : y) EXPECT_EQ(out, y[0]);
}

}  // namespace
}  // namespace hilomoe
