// The stacked product [W0; V] x at the shapes of the bench model: of one row (bound by reading the weight) and of
// tiles.
#include <cstddef>
#include <memory>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "runtime/dense_product.h"
#include "tools/bench/result_check.h"
#include "tools/bench/suite.h"

namespace hilomoe::bench {
namespace {

struct Shape {
  const char* name;
  int n, k;
};
constexpr Shape kShapes[] = {{"block 1", 464, 624},
                             {"block 1, context's half", 464, 416},
                             {"block 1, candidate's half", 464, 208},
                             {"blocks 2 and 3", 464, 400}};

struct Product {
  Product(const Shape& shape_, int rows_)
      : shape(shape_),
        rows(rows_),
        weight(static_cast<size_t>(shape_.n) * static_cast<size_t>(shape_.k)),
        x(static_cast<size_t>(kTileRows) * static_cast<size_t>(shape_.k)),
        y(static_cast<size_t>(kTileRows) * static_cast<size_t>(shape_.n)) {
    std::mt19937_64 engine(21);
    std::normal_distribution<float> normal;
    for (float& w : weight) w = normal(engine);
    for (float& value : x) value = normal(engine);
  }
  absl::Status Create() {
    HILOMOE_ASSIGN_OR_RETURN(product, DenseProduct::Create(weight.data(), shape.n, shape.k, shape.k, shape.k, shape.n));
    scratchpad.resize(product->scratchpad_bytes());
    executor = std::make_unique<DenseProduct::Executor>(*product, x.data(), y.data(), scratchpad.data());
    return absl::OkStatus();
  }
  absl::Status Verify() const {
    executor->Run(rows);
    for (int r = 0; r < rows; r += 7) {  // some rows, all of their columns
      std::vector<Rounded> expected(static_cast<size_t>(shape.n), 0.0);
      for (int i = 0; i < shape.n; ++i) {
        for (int j = 0; j < shape.k; ++j) {
          expected[i] += Rounded(weight[static_cast<size_t>(i) * shape.k + j]) * Rounded(x[r * shape.k + j]);
        }
      }
      const auto got = absl::MakeConstSpan(y).subspan(static_cast<size_t>(r) * shape.n, shape.n);
      HILOMOE_RETURN_IF_ERROR(CheckNumbers(absl::StrCat("row ", r), got, expected));
    }
    return absl::OkStatus();
  }

  const Shape shape;
  const int rows;
  std::vector<float> weight, x, y;
  std::vector<std::byte> scratchpad;
  std::unique_ptr<DenseProduct> product;
  std::unique_ptr<DenseProduct::Executor> executor;
};

}  // namespace

void AddProductCases(const Suite& suite, std::vector<Case>* cases) {
  for (const Shape& shape : kShapes) {
    for (const int rows : {1, 8, kTileRows}) {
      Case c;
      c.group = "products";
      c.name = absl::StrCat(shape.name, ", ", shape.k, " to ", shape.n, ", rows ", rows);
      c.instruction_set = ProductInstructionSet();
      c.work.flops = 2.0 * rows * shape.n * shape.k;
      c.work.bytes = 4.0 * (shape.n * shape.k + rows * (shape.n + shape.k));
      c.prepare = [&shape, rows](int) -> absl::StatusOr<Operands> {
        const auto product = std::make_shared<Product>(shape, rows);
        HILOMOE_RETURN_IF_ERROR(product->Create());
        return Operands{[product] { return product->Verify(); }, [product] { product->executor->Run(product->rows); }};
      };
      AddWarmAndFlushed(c, cases);
      if (rows < kTileRows || suite.options.threads == 1) continue;
      c.compared_with.push_back(FullName(c));
      c.threads = suite.options.threads;
      cases->push_back(c);
    }
  }
}

}  // namespace hilomoe::bench
