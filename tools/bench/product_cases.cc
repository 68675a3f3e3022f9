// The stacked product [W0; V] x at the shapes of the bench model, in every precision: of one row (bound by reading the
// weight) and of tiles. Rounding the activations is part of it, as serving pays it, and timed alone as well.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/reference.h"
#include "model/status_macros.h"
#include "model/stored_matrix.h"
#include "runtime/packed_product.h"
#include "tools/bench/random_numbers.h"
#include "tools/bench/result_check.h"
#include "tools/bench/suite.h"

namespace hilomoe::bench {
namespace {

using kernels::Kernels;

constexpr Precision kPrecisions[] = {Precision::kFloat32, Precision::kBfloat16, Precision::kInt8};

struct Shape {
  const char* name;
  size_t n, k;
};
constexpr Shape kBlock1 = {"block 1", 464, 624}, kContextHalf = {"block 1, context's half", 464, 416},
                kCandidateHalf = {"block 1, candidate's half", 464, 208}, kBlock2 = {"blocks 2 and 3", 464, 400},
                kBlock3 = {"block 3", 464, 400};  // as block 2, elsewhere in memory

// One after the other, as a request of one candidate makes them.
struct Turn {
  std::string name;
  std::vector<Shape> shapes;
};

std::vector<std::byte> RandomWeight(const Shape& shape, Precision precision) {
  const AlignedVector<float> numbers = RandomNumbers(shape.n * shape.k, 21);
  const size_t row_bytes = StoredRowBytes(precision, shape.k);
  std::vector<std::byte> stored(shape.n * row_bytes);
  for (size_t i = 0; i < shape.n; ++i) {
    StoreRow(precision, {&numbers[i * shape.k], shape.k}, &stored[i * row_bytes]);
  }
  return stored;
}

struct Weight {
  Weight(const Shape& shape, Precision precision)
      : stored(RandomWeight(shape, precision)),
        matrix{precision, stored.data(), shape.n, shape.k},
        product(matrix, 0, shape.k) {}

  const std::vector<std::byte> stored;
  const StoredMatrix matrix;
  const PackedProduct product;
};

// Of all cases that use it: so that it is read where it is multiplied.
std::shared_ptr<const Weight> SharedWeight(const Shape& shape, Precision precision) {
  static std::mutex mutex;
  static std::map<std::pair<std::string, Precision>, std::shared_ptr<const Weight>> weights;
  const std::lock_guard lock(mutex);
  std::shared_ptr<const Weight>& weight = weights[{shape.name, precision}];
  if (weight == nullptr) weight = std::make_shared<Weight>(shape, precision);
  return weight;
}

struct Product {
  Product(const Shape& shape_, Precision precision, int rows_, const Kernels& kernels_)
      : shape(shape_),
        rows(rows_),
        kernels(kernels_),
        shared(SharedWeight(shape_, precision)),
        weight(shared->matrix),
        product(shared->product),
        x(RandomNumbers(kTileRows * shape_.k, 22)),
        y(kTileRows * shape_.n),
        scratchpad(product.scratchpad_bytes()) {}

  void Run() {
    const int n = static_cast<int>(shape.n), k = static_cast<int>(shape.k);
    product.Run(kernels, rows, x.data(), k, {}, y.data(), n, scratchpad.data());
  }
  // Some rows, all of their columns, against the weights as they are stored; the bound knows how x is rounded.
  absl::Status Verify() {
    Run();
    std::vector<float> w(shape.k);
    for (size_t r = 0; r < static_cast<size_t>(rows); r += 7) {
      std::vector<Rounded> row(&x[r * shape.k], &x[r * shape.k] + shape.k), expected(shape.n, 0.0);
      AddRoundingError(weight.precision, row.data(), shape.k);
      for (size_t i = 0; i < shape.n; ++i) {
        weight.ReadRow(i, w.data());
        for (size_t j = 0; j < shape.k; ++j) expected[i] += Rounded(w[j]) * row[j];
      }
      const absl::Status status = CheckNumbers(absl::StrCat("row ", r), {&y[r * shape.n], shape.n}, expected);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  const Shape shape;
  const int rows;
  const Kernels& kernels;
  const std::shared_ptr<const Weight> shared;
  const StoredMatrix& weight;
  const PackedProduct& product;
  const AlignedVector<float> x;
  AlignedVector<float> y;
  AlignedVector<std::byte> scratchpad;
};

// That a product cannot do without: of int8 every row's scale and sum as well.
double WeightBytes(const Shape& shape, Precision precision) {
  const double n = static_cast<double>(shape.n), k = static_cast<double>(shape.k);
  return PackedBytes(precision) * n * k + (precision == Precision::kInt8 ? 8 * n : 0);
}

Case ProductCase(const Turn& turn, int rows, Precision precision, const Kernels& kernels) {
  Case c;
  c.group = "products";
  c.name = absl::StrCat(turn.name, ", rows ", rows, ", ", PrecisionName(precision));
  c.instruction_set = kernels.name;
  c.work.precision = PrecisionName(precision);
  for (const Shape& shape : turn.shapes) {
    const double n = static_cast<double>(shape.n), k = static_cast<double>(shape.k);
    c.work.flops += 2 * rows * n * k;
    c.work.bytes += WeightBytes(shape, precision) + 4 * rows * k;
  }
  c.prepare = [turn, rows, precision, &kernels](int) -> absl::StatusOr<Operands> {
    const auto products = std::make_shared<std::vector<std::unique_ptr<Product>>>();
    for (const Shape& shape : turn.shapes) {
      products->push_back(std::make_unique<Product>(shape, precision, rows, kernels));
    }
    Operands operands;
    operands.verify = [products]() -> absl::Status {
      for (const auto& product : *products) HILOMOE_RETURN_IF_ERROR(product->Verify());
      return absl::OkStatus();
    };
    operands.run = [products] {
      for (const auto& product : *products) product->Run();
    };
    return operands;
  };
  return c;
}

Case ReadOfWeights(const Turn& turn, Precision precision) {
  double bytes = 0;
  for (const Shape& shape : turn.shapes) bytes += WeightBytes(shape, precision);
  const char* const what = turn.shapes.size() == 1 ? ", plain read of its weight, " : ", plain read of their weights, ";
  return PlainRead(absl::StrCat(turn.name, what, PrecisionName(precision)), static_cast<size_t>(bytes),
                   [turn, precision] {
                     std::vector<Words> words;
                     for (const Shape& shape : turn.shapes) {
                       const std::shared_ptr<const Weight> weight = SharedWeight(shape, precision);
                       const auto* const first = reinterpret_cast<const uint64_t*>(weight->product.weight().data);
                       words.push_back({{weight, first}, static_cast<size_t>(WeightBytes(shape, precision))});
                     }
                     return words;
                   });
}

// ---- what the products of fewer bits are given ----

constexpr int kRows = 64, kWidth = 400;

struct Conversion {
  Conversion(Precision to_, const Kernels& kernels_) : to(to_), kernels(kernels_) {}

  void Run() {
    if (to == Precision::kInt8) {
      kernels.quantise(kRows, kWidth, x.data(), kWidth, nullptr, cells.data(), kWidth / 4, scale.data());
    } else {
      kernels.round_to_bfloat16(kRows, kWidth, x.data(), kWidth, cells.data(), kWidth / 2);
    }
  }
  absl::Status Verify() {
    Run();
    for (size_t r = 0; r < kRows; ++r) {
      if (to == Precision::kInt8 ? !RightInt8(r) : !RightBfloat16(r)) {
        return absl::DataLossError(absl::StrCat("row ", r, " is converted wrongly"));
      }
    }
    return absl::OkStatus();
  }
  // The bits that a file would hold.
  bool RightBfloat16(size_t r) const {
    std::vector<std::byte> expected(StoredRowBytes(to, kWidth));
    StoreRow(to, {&x[r * kWidth], kWidth}, expected.data());
    return std::memcmp(expected.data(), &cells[r * kWidth / 2], expected.size()) == 0;
  }
  // Half a step off at most, where the row's largest number is 127 steps.
  bool RightInt8(size_t r) const {
    const auto* q = reinterpret_cast<const uint8_t*>(&cells[r * kWidth / 4]);
    const float* row = &x[r * kWidth];
    double largest = 0, error = 0;
    for (size_t d = 0; d < kWidth; ++d) largest = std::max(largest, std::fabs(static_cast<double>(row[d])));
    for (size_t d = 0; d < kWidth; ++d) error = std::max(error, std::fabs(double{scale[r]} * (q[d] - 128) - row[d]));
    return error <= largest / 254 * 1.0001 && std::fabs(scale[r] * 127 - largest) <= largest * 1e-6;
  }

  const Precision to;
  const Kernels& kernels;
  const AlignedVector<float> x = RandomNumbers(kRows * kWidth, 23);
  AlignedVector<uint32_t> cells = AlignedVector<uint32_t>(x.size() / 2);
  AlignedVector<float> scale = AlignedVector<float>(kRows);
};

void AddConversions(std::vector<Case>* cases) {
  for (const Precision to : {Precision::kBfloat16, Precision::kInt8}) {
    const auto code = [to](const Kernels& kernels) {
      return std::make_pair(to == Precision::kBfloat16 ? kernels.round_to_bfloat16 : nullptr,
                            to == Precision::kInt8 ? kernels.quantise : nullptr);
    };
    for (const Kernels* kernels : SupportedKernels(code)) {
      Case c;
      c.group = "products";
      c.name = absl::StrCat(to == Precision::kInt8 ? "quantise" : "round_to_bfloat16", ", ", kRows, " x ", kWidth);
      c.instruction_set = kernels->name;
      c.work.bytes = 4.0 * kRows * kWidth;
      c.prepare = [to, kernels](int) -> absl::StatusOr<Operands> {
        const auto conversion = std::make_shared<Conversion>(to, *kernels);
        return Operands{[conversion] { return conversion->Verify(); }, [conversion] { conversion->Run(); }};
      };
      if (code(*kernels) == code(kernels::SelectKernels())) {
        AddWarmAndFlushed(c, cases);
      } else {
        cases->push_back(c);
      }
    }
  }
}

}  // namespace

void AddProductCases(const Suite& suite, std::vector<Case>* cases) {
  const auto add = [&](const Turn& turn, int rows, Precision precision, std::string* float32) {
    // The product and the conversion of what it is given.
    const auto code = [precision](const Kernels& kernels) {
      return std::make_tuple(kernels.product[static_cast<int>(precision)],
                             precision == Precision::kInt8 ? kernels.quantise : nullptr,
                             precision == Precision::kBfloat16 ? kernels.round_to_bfloat16 : nullptr);
    };
    for (const Kernels* kernels : SupportedKernels(code)) {
      Case c = ProductCase(turn, rows, precision, *kernels);
      if (code(*kernels) != code(kernels::SelectKernels())) {
        if (rows == kTileRows) cases->push_back(c);
        continue;
      }
      if (precision == Precision::kFloat32) {
        *float32 = FullName(c);
      } else {
        c.compared_with.push_back(*float32);
      }
      if (rows == 1) {  // bound by reading weights
        cases->push_back(ReadOfWeights(turn, precision));
        c.compared_with.push_back(FullName(cases->back()));
      }
      AddWarmAndFlushed(c, cases);
      if (rows < kTileRows || suite.options.threads == 1) continue;
      c.compared_with = {FullName(c)};
      c.threads = suite.options.threads;
      cases->push_back(c);
    }
  };
  const auto add_all = [&](const Turn& turn, int rows) {
    std::string float32;
    for (const Precision precision : kPrecisions) add(turn, rows, precision, &float32);
  };
  for (const Shape& shape : {kBlock1, kContextHalf, kCandidateHalf, kBlock2}) {
    for (const int rows : {1, 8, kTileRows}) {
      add_all({absl::StrCat(shape.name, ", ", shape.k, " to ", shape.n), {shape}}, rows);
    }
  }
  add_all({"blocks 1 to 3 in turn", {kBlock1, kBlock2, kBlock3}}, 1);
  add_all({"halves of block 1, blocks 2 and 3 in turn", {kContextHalf, kCandidateHalf, kBlock2, kBlock3}}, 1);
  AddConversions(cases);
}

}  // namespace hilomoe::bench
