#include "tools/train/bfloat16_gemm.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#include "runtime/kernels/kernels.h"
#include "tools/train/transpose.h"

namespace hilomoe {
namespace {

using kernels::kPanelOutputs;

// op(A) and op(B) are rounded block by block. A block of op(B), kDepth x kWidth numbers in 1 MiB, stays in L2 or close
// by while kRows rows of op(A) at a time (64 KiB) run past it; the 8 of them that a tile takes, 8 KiB, stay in L1.
constexpr size_t kDepth = 512;
constexpr size_t kRows = 64;
constexpr size_t kWidth = 1024;
constexpr size_t kPanel = static_cast<size_t>(kPanelOutputs);
constexpr size_t kPairedRows = 16;
// Keeps rows whose length is a power of two out of the same cache sets.
constexpr size_t kSkew = 16;

int Int(size_t n) { return static_cast<int>(n); }

struct Free {
  void operator()(uint32_t* p) const { std::free(p); }
};

// A thread's memory for rounded blocks.
class Workspace {
 public:
  uint32_t* Get(size_t count) {
    if (count > size_) {
      const size_t bytes = (count * sizeof(uint32_t) + 63) / 64 * 64;
      memory_.reset(static_cast<uint32_t*>(std::aligned_alloc(64, bytes)));
      if (memory_ == nullptr) throw std::bad_alloc();
      size_ = count;
    }
    return memory_.get();
  }

 private:
  std::unique_ptr<uint32_t, Free> memory_;
  size_t size_ = 0;
};

// The smallest part of n, in multiples of `grain`, that divides it into as few parts as `limit` allows.
size_t EqualPart(size_t n, size_t limit, size_t grain) {
  const size_t parts = (n + limit - 1) / limit;
  return ((n + parts - 1) / parts + grain - 1) / grain * grain;
}

// A block of op(B), rounded and packed, and rows of op(A) times it.
class Blocks {
 public:
  Blocks(bool transpose_a, bool transpose_b, size_t width, size_t depth)
      : transpose_a_(transpose_a), transpose_b_(transpose_b), lda_(depth / 2 + kSkew) {
    thread_local Workspace workspace;
    const size_t cells_a = kRows * lda_, cells_b = width * depth / 2;
    b_ = workspace.Get(cells_b + cells_a + std::max({cells_a, kPanel * depth / 2, kPairedRows / 2 * width}));
    a_ = b_ + cells_b;
    scratch_ = a_ + cells_a;
  }

  // op(B) [terms, columns] into panels, W = op(B)^T.
  void PackB(size_t columns, size_t terms, const float* b, size_t ldb) {
    const size_t cells = (terms + 1) / 2;
    weight_ = {kernels::Precision::kBfloat16, Int(columns), Int(cells), b_, nullptr, nullptr};
    panels_ = Int((columns + kPanel - 1) / kPanel);
    if (columns % kPanel > 0) {
      const kernels::PanelGroup last = kernels::GroupOfPanel(panels_, panels_ - 1);
      std::fill_n(b_ + kernels::FirstCell(Int(cells), last, last.first), cells * Step(last), 0U);
    }
    if (!transpose_b_) return PackPairs(columns, terms, b, ldb);
    for (int panel = 0; panel < panels_; ++panel) {
      const kernels::PanelGroup group = kernels::GroupOfPanel(panels_, panel);
      const size_t first = static_cast<size_t>(panel) * kPanel, outputs = std::min(kPanel, columns - first);
      kernels_.round_to_bfloat16(Int(outputs), Int(terms), b + first * ldb, Int(ldb), scratch_, Int(cells));
      Transpose4(outputs, cells, scratch_, cells, b_ + kernels::FirstCell(Int(cells), group, panel), Step(group));
    }
  }

  // C [rows, columns of the packed B] = op(A) B, or C +=. rows <= kRows.
  void Multiply(size_t rows, size_t terms, const float* a, size_t lda, bool add, float* c, size_t ldc) {
    if (transpose_a_) {
      kernels_.pair_to_bfloat16(Int(terms), Int(rows), a, Int(lda), scratch_, Int(kRows));
      Transpose4((terms + 1) / 2, rows, scratch_, kRows, a_, lda_);
    } else {
      kernels_.round_to_bfloat16(Int(rows), Int(terms), a, Int(lda), a_, Int(lda_));
    }
    kernels::ProductStore store;
    if (add) {
      store.add = c;
      store.ldadd = Int(ldc);
    }
    const auto product = kernels_.product[static_cast<int>(kernels::Precision::kBfloat16)];
    product(weight_, Int(rows), {a_, Int(lda_), nullptr}, store, c, Int(ldc));
  }

 private:
  // Cells of a group's that belong to the same columns.
  static size_t Step(kernels::PanelGroup group) { return static_cast<size_t>(group.count) * kPanel; }

  // PackB of a B that is not transposed: whole rows, because those are what memory gives fastest, and then their
  // pieces to the groups of panels.
  void PackPairs(size_t columns, size_t terms, const float* b, size_t ldb) {
    const size_t cells = (terms + 1) / 2;
    for (size_t p = 0; p < terms; p += kPairedRows, b += kPairedRows * ldb) {
      const size_t rows = std::min(kPairedRows, terms - p);
      kernels_.pair_to_bfloat16(Int(rows), Int(columns), b, Int(ldb), scratch_, Int(columns));
      const uint32_t* from = scratch_;
      for (size_t cell = p / 2; cell < (p + rows + 1) / 2; ++cell, from += columns) {
        for (int panel = 0; panel < panels_;) {
          const kernels::PanelGroup group = kernels::GroupOfPanel(panels_, panel);
          const size_t first = static_cast<size_t>(panel) * kPanel, count = std::min(Step(group), columns - first);
          std::copy_n(from + first, count, b_ + kernels::FirstCell(Int(cells), group, panel) + cell * Step(group));
          panel += group.count;
        }
      }
    }
  }

  const kernels::Kernels& kernels_ = kernels::SelectKernels();
  const bool transpose_a_, transpose_b_;
  const size_t lda_;
  uint32_t *b_, *a_, *scratch_;
  int panels_ = 0;
  kernels::PackedWeight weight_ = {};
};

}  // namespace

void Bfloat16Gemm(Transpose transpose_a, Transpose transpose_b, size_t m, size_t n, size_t k, const float* a,
                  size_t lda, const float* b, size_t ldb, bool add, float* c, size_t ldc) {
  const bool at = transpose_a == Transpose::kYes, bt = transpose_b == Transpose::kYes;
  if (k == 0 && !add) {
    for (size_t i = 0; i < m; ++i) std::fill_n(c + i * ldc, n, 0.0F);
  }
  if (m == 0 || n == 0 || k == 0) return;
  const size_t width = EqualPart(n, kWidth, kPanel), depth = EqualPart(k, kDepth, 2);
  Blocks blocks(at, bt, width, depth);
  for (size_t j = 0; j < n; j += width) {
    for (size_t p = 0; p < k; p += depth) {
      const size_t terms = std::min(depth, k - p);
      blocks.PackB(std::min(width, n - j), terms, b + (bt ? j * ldb + p : p * ldb + j), ldb);
      for (size_t i = 0; i < m; i += kRows) {
        blocks.Multiply(std::min(kRows, m - i), terms, a + (at ? p * lda + i : i * lda + p), lda, add || p > 0,
                        c + i * ldc + j, ldc);
      }
    }
  }
}

}  // namespace hilomoe
