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

// op(A) and op(B) are rounded block by block. A block of op(B), kDepth x kWidth numbers in 1 MiB, stays in L2 or close
// by while kRows rows of op(A) at a time (64 KiB) run past it; the 8 of them that a tile takes, 8 KiB, stay in L1.
constexpr size_t kDepth = 512;
constexpr size_t kRows = 64;
constexpr size_t kWidth = 1024;
constexpr size_t kPanel = static_cast<size_t>(kernels::kPanelOutputs);
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
    const size_t cells_a = kRows * lda_;
    const size_t cells_b = Layout(width, depth).size();
    b_ = workspace.Get(cells_b + cells_a + std::max({cells_a, kPanel * depth / 2, kPairedRows / 2 * width}));
    a_ = b_ + cells_b;
    scratch_ = a_ + cells_a;
  }

  // op(B) [terms, columns] into panels, W = op(B)^T.
  void PackB(size_t columns, size_t terms, const float* b, size_t ldb) {
    weight_ = {Layout(columns, terms), b_};
    const kernels::PackedLayout& layout = weight_.layout;
    const auto cells = static_cast<size_t>(layout.cells);
    if (columns % kPanel > 0) {
      const kernels::PanelGroup last = layout.Group(layout.panels - 1);
      std::fill_n(b_ + layout.size() - cells * last.stride(), cells * last.stride(), 0U);
    }
    if (!transpose_b_) return PackPairs(columns, terms, b, ldb);
    for (size_t first = 0; first < columns; first += kPanel) {
      const size_t outputs = std::min(kPanel, columns - first);
      kernels_.round_to_bfloat16(Int(outputs), Int(terms), b + first * ldb, Int(ldb), scratch_, Int(cells));
      const size_t stride = layout.Group(Int(first / kPanel)).stride();
      Transpose4(outputs, cells, scratch_, cells, b_ + layout.Cell(Int(first), 0), stride);
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
  static kernels::PackedLayout Layout(size_t columns, size_t terms) {
    return {kernels::Precision::kBfloat16, Int(columns), Int(terms)};
  }

  // PackB of a B that is not transposed: whole rows, because those are what memory gives fastest, and then their
  // pieces to the groups of panels.
  void PackPairs(size_t columns, size_t terms, const float* b, size_t ldb) {
    const kernels::PackedLayout& layout = weight_.layout;
    for (size_t p = 0; p < terms; p += kPairedRows, b += kPairedRows * ldb) {
      const size_t rows = std::min(kPairedRows, terms - p);
      kernels_.pair_to_bfloat16(Int(rows), Int(columns), b, Int(ldb), scratch_, Int(columns));
      const uint32_t* from = scratch_;
      for (size_t cell = p / 2; cell < (p + rows + 1) / 2; ++cell, from += columns) {
        for (size_t first = 0; first < columns;) {
          const size_t count = std::min(layout.Group(Int(first / kPanel)).stride(), columns - first);
          std::copy_n(from + first, count, b_ + layout.Cell(Int(first), Int(cell)));
          first += count;
        }
      }
    }
  }

  const kernels::Kernels& kernels_ = kernels::SelectKernels();
  const bool transpose_a_, transpose_b_;
  const size_t lda_;
  uint32_t *b_, *a_, *scratch_;
  kernels::PackedWeight weight_ = {Layout(0, 0), nullptr};
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
