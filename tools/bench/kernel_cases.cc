// The kernels of runtime/kernels but routing and products, at the shapes that they have in the bench model.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/reference.h"
#include "runtime/packed_product.h"
#include "tools/bench/random_numbers.h"
#include "tools/bench/result_check.h"
#include "tools/bench/suite.h"

namespace hilomoe::bench {
namespace {

using kernels::Activation;
using kernels::Kernels;

constexpr int kWidth = 400, kStack = 64, kKept = 16, kStacked = kWidth + kStack;

size_t Size(int rows, int columns) { return static_cast<size_t>(rows) * static_cast<size_t>(columns); }

Case KernelCase(const Kernels& kernels, std::string name, double flops, double bytes) {
  Case c;
  c.group = "kernels";
  c.name = std::move(name);
  c.instruction_set = kernels.name;
  c.work.flops = flops;
  c.work.bytes = bytes;
  return c;
}

// Flushed only for the instruction set that is served with: then all are bound by memory.
void Add(const Kernels& kernels, const Case& c, std::vector<Case>* cases) {
  if (kernels.head == kernels::SelectKernels().head) {
    AddWarmAndFlushed(c, cases);
  } else {
    cases->push_back(c);
  }
}

// ---- experts ----

struct Experts {
  Experts(int rows_, bool top_k_)
      : rows(rows_),
        top_k(top_k_),
        n(top_k_ ? kKept : kStack),
        gated(RandomNumbers(Size(rows_, n), 1)),
        u(RandomNumbers(Size(kStack, kWidth), 2)),
        product({Precision::kFloat32, reinterpret_cast<const std::byte*>(u.data()), kStack, kWidth}, 0, kStack, true),
        bias(RandomNumbers(kWidth, 3)),
        start(RandomNumbers(Size(rows_, kStacked), 4)),
        y(start),
        index(Size(rows_, n)) {
    std::mt19937_64 engine(5);
    constexpr int kExpertsALayer = 16;
    const int kept = kKept / (kStack / kExpertsALayer);
    for (size_t i = 0; i < index.size(); ++i) {  // ascending, `kept` of each layer
      const int j = static_cast<int>(i) % n, layer = j / kept, step = kExpertsALayer / kept;
      index[i] = layer * kExpertsALayer + j % kept * step + static_cast<int32_t>(engine() % step);
    }
  }
  void Run(const Kernels& kernels) {
    if (top_k) {
      kernels.add_experts_top_k(rows, kWidth, n, gated.data(), n, index.data(), n, u.data(), kWidth, bias.data(),
                                Activation::kRelu, y.data(), kStacked);
    } else {
      product.Run(kernels, rows, gated.data(), n, {y.data(), kStacked, bias.data(), Activation::kRelu}, y.data(),
                  kStacked, nullptr);
    }
  }
  absl::Status Verify(const Kernels& kernels) {
    y = start;
    Run(kernels);
    std::vector<float> got;
    std::vector<Rounded> expected;
    for (int r = 0; r < rows; ++r) {
      for (int o = 0; o < kWidth; ++o) {
        const size_t at = Size(r, kStacked) + static_cast<size_t>(o);
        Rounded sum = Rounded(start[at]) + Rounded(bias[static_cast<size_t>(o)]);
        for (int j = 0; j < n; ++j) {
          const size_t g = Size(r, n) + static_cast<size_t>(j);
          sum += Rounded(gated[g]) * Rounded(u[Size(top_k ? index[g] : j, kWidth) + static_cast<size_t>(o)]);
        }
        got.push_back(y[at]);
        expected.push_back(Relu(sum));
      }
    }
    return CheckNumbers("y", got, expected);
  }

  int rows;
  bool top_k;
  int n;
  AlignedVector<float> gated, u;
  PackedProduct product;  // of dense routing: gated times U
  AlignedVector<float> bias, start, y;
  AlignedVector<int32_t> index;
};

void AddExperts(const Kernels& kernels, std::vector<Case>* cases) {
  for (const int rows : {1, 64}) {
    for (const bool top_k : {false, true}) {
      const int n = top_k ? kKept : kStack;
      const double flops = 2.0 * rows * n * kWidth;
      // One row with top-k reads only the kept rows of U.
      const double read = static_cast<double>(Size(top_k && rows == 1 ? n : kStack, kWidth) + Size(rows, kWidth + n));
      const std::string name = top_k ? "add_experts_top_k" : "product of dense experts";
      Case c = KernelCase(kernels, absl::StrCat(name, ", rows ", rows), flops, 4 * read);
      c.prepare = [rows, top_k, &kernels](int) -> absl::StatusOr<Operands> {
        const auto experts = std::make_shared<Experts>(rows, top_k);
        return Operands{[experts, &kernels] { return experts->Verify(kernels); },
                        [experts, &kernels] { experts->Run(kernels); }};
      };
      if (top_k) {
        Case dense = c;
        dense.name = absl::StrCat("product of dense experts, rows ", rows);
        c.compared_with.push_back(FullName(dense));
      }
      Add(kernels, c, cases);
    }
  }
}

// ---- from x [64, 400] to one number a row, or in place ----

constexpr int kRows = 64;

struct Rows {
  AlignedVector<float> x = RandomNumbers(Size(kRows, kWidth), 6);
  AlignedVector<float> weight = RandomNumbers(3 * kWidth, 7);
  AlignedVector<float> out = AlignedVector<float>(kRows);
  AlignedVector<float> y = x;
};

// run(kernels, rows) is timed; its output is `out` or `y`, expected(rows, r, o) what it must be.
template <class Run, class Expected>
void AddRows(const Kernels& kernels, const char* name, double flops, double floats, bool in_place, Run run,
             Expected expected, std::vector<Case>* cases) {
  Case c = KernelCase(kernels, absl::StrCat(name, ", rows ", kRows), flops * kRows * kWidth, 4 * floats);
  c.prepare = [&kernels, in_place, run, expected](int) -> absl::StatusOr<Operands> {
    const auto rows = std::make_shared<Rows>();
    Operands operands;
    operands.run = [rows, &kernels, run] { run(kernels, *rows); };
    operands.verify = [rows, &kernels, in_place, run, expected]() -> absl::Status {
      run(kernels, *rows);
      std::vector<Rounded> wanted;
      for (int r = 0; r < kRows; ++r) {
        for (int o = 0; o < (in_place ? kWidth : 1); ++o) wanted.push_back(expected(*rows, r, o));
      }
      const absl::Status status = CheckNumbers("the result", in_place ? rows->y : rows->out, wanted);
      // What activates in place is applied over and over: 0 stays 0, other numbers would shrink to denormal ones.
      if (in_place) std::fill(rows->y.begin(), rows->y.end(), 0.0F);
      return status;
    };
    return operands;
  };
  Add(kernels, c, cases);
}

Rounded At(const AlignedVector<float>& x, int r, int o) { return Rounded(x[Size(r, kWidth) + static_cast<size_t>(o)]); }

void AddReductions(const Kernels& kernels, std::vector<Case>* cases) {
  AddRows(
      kernels, "squared_norm", 2, Size(kRows, kWidth), false,
      [](const Kernels& k, Rows& rows) { k.squared_norm(kRows, kWidth, rows.x.data(), kWidth, rows.out.data()); },
      [](const Rows& rows, int r, int) {
        Rounded sum = 0.0;
        for (int o = 0; o < kWidth; ++o) sum += At(rows.x, r, o) * At(rows.x, r, o);
        return sum;
      },
      cases);
  AddRows(
      kernels, "head", 2, Size(kRows + 1, kWidth), false,
      [](const Kernels& k, Rows& rows) {
        k.head(kRows, kWidth, rows.x.data(), kWidth, rows.weight.data(), 0.5F, rows.out.data());
      },
      [](const Rows& rows, int r, int) {
        Rounded sum = 0.5;
        for (int o = 0; o < kWidth; ++o) sum += At(rows.x, r, o) * At(rows.weight, 0, o);
        return sum;
      },
      cases);
}

void AddActivations(const Kernels& kernels, std::vector<Case>* cases) {
  AddRows(
      kernels, "silu", 0, Size(kRows, kWidth), true,
      [](const Kernels& k, Rows& rows) { k.silu(kRows, kWidth, rows.y.data(), kWidth); },
      [](const Rows& rows, int r, int o) { return At(rows.x, r, o) * ReferenceSigmoid(At(rows.x, r, o)); }, cases);
  AddRows(
      kernels, "dice", 0, Size(kRows + 3, kWidth), true,
      [](const Kernels& k, Rows& rows) {
        const float* w = rows.weight.data();
        k.dice(kRows, kWidth, w, w + kWidth, w + 2 * kWidth, rows.y.data(), kWidth);
      },
      [](const Rows& rows, int r, int o) {
        const Rounded x = At(rows.x, r, o), a = At(rows.weight, 2, o);
        const Rounded p = ReferenceSigmoid((x - At(rows.weight, 0, o)) * At(rows.weight, 1, o));
        return x * (p + a * (Rounded(1.0) - p));
      },
      cases);
  AddRows(
      kernels, "add", 1, Size(2 * kRows, kWidth), true,
      [](const Kernels& k, Rows& rows) {
        for (int r = 0; r < kRows; ++r) k.add(kWidth, &rows.x[Size(r, kWidth)], &rows.y[Size(r, kWidth)]);
      },
      [](const Rows& rows, int r, int o) { return At(rows.x, r, o) + At(rows.x, r, o); }, cases);
}

// ---- attention of one candidate over a history ----

struct Attention {
  static constexpr int kPositions = 50, kHistoryWidth = 32;

  Attention() {
    for (int j = 0; j < kPositions; ++j) {
      for (int d = 0; d < kHistoryWidth; ++d) transposed[Size(d, kPositions) + j] = history[Size(j, kHistoryWidth) + d];
    }
    for (float& x : p) x /= 8;  // scores of order 1
  }
  void Run(const Kernels& kernels) {
    kernels.attend(kPositions, kHistoryWidth, history.data(), kHistoryWidth, transposed.data(), kPositions, p.data(),
                   scores.data(), out.data());
  }
  absl::Status Verify(const Kernels& kernels) {
    Run(kernels);
    std::vector<Rounded> z(kPositions, 0.0), s(kPositions), expected(kHistoryWidth, 0.0);
    for (int j = 0; j < kPositions; ++j) {
      for (int d = 0; d < kHistoryWidth; ++d) z[j] += Rounded(history[Size(j, kHistoryWidth) + d]) * Rounded(p[d]);
    }
    ReferenceScores(z, 0, s.data());
    for (int j = 0; j < kPositions; ++j) {
      for (int d = 0; d < kHistoryWidth; ++d) expected[d] += s[j] * Rounded(history[Size(j, kHistoryWidth) + d]);
    }
    return CheckNumbers("the pooled history", out, expected);
  }

  AlignedVector<float> history = RandomNumbers(Size(kPositions, kHistoryWidth), 8);
  AlignedVector<float> transposed = AlignedVector<float>(history.size());
  AlignedVector<float> p = RandomNumbers(kHistoryWidth, 9);
  AlignedVector<float> scores = AlignedVector<float>(kPositions), out = AlignedVector<float>(kHistoryWidth);
};

void AddAttention(const Kernels& kernels, std::vector<Case>* cases) {
  constexpr double kTerms = static_cast<double>(Attention::kPositions) * Attention::kHistoryWidth;
  Case c = KernelCase(kernels, absl::StrCat("attend, positions ", Attention::kPositions), 4 * kTerms, 8 * kTerms);
  c.prepare = [&kernels](int) -> absl::StatusOr<Operands> {
    const auto attention = std::make_shared<Attention>();
    return Operands{[attention, &kernels] { return attention->Verify(kernels); },
                    [attention, &kernels] { attention->Run(kernels); }};
  };
  Add(kernels, c, cases);
}

}  // namespace

void AddKernelCases(const Suite&, std::vector<Case>* cases) {
  for (const Kernels* kernels : SupportedKernels(&Kernels::head)) {
    AddExperts(*kernels, cases);
    AddReductions(*kernels, cases);
    AddActivations(*kernels, cases);
    AddAttention(*kernels, cases);
  }
}

}  // namespace hilomoe::bench
