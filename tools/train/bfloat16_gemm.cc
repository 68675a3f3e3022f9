#include "tools/train/bfloat16_gemm.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#include "runtime/kernels/kernels.h"
#include "tools/train/target_clones.h"
#include "tools/train/transpose.h"

namespace hilomoe {
namespace {

using kernels::kPanelOutputs;

// op(A) and op(B) are rounded block by block. A block of op(B), kDepth x kWidth numbers in 1 MiB, stays in L2 or close
// by while kRows rows of op(A) at a time (128 KiB) run past it; the 8 of them that a tile takes, 16 KiB, stay in L1.
constexpr size_t kDepth = 1024;
constexpr size_t kRows = 64;
constexpr size_t kWidth = 512;
constexpr size_t kPanel = static_cast<size_t>(kPanelOutputs);
// Keeps rows whose length is a power of two out of the same cache sets.
constexpr size_t kSkew = 16;

// Rounds two numbers to bfloat16, ties to even, side by side in a cell of kernels::PackedWeight; NaN stays NaN.
HILOMOE_INLINE uint32_t Cell(float low, float high) {
  const uint32_t l = std::bit_cast<uint32_t>(low), h = std::bit_cast<uint32_t>(high);
  const uint32_t rounded_l = low == low ? l + 0x7fff + (l >> 16 & 1) : 0x7fc00000;
  const uint32_t rounded_h = high == high ? h + 0x7fff + (h >> 16 & 1) : 0x7fc00000;
  return rounded_l >> 16 | (rounded_h & 0xffff0000);
}

// to[p, c] = Cell(from[2 p, c], from[2 p + 1, c]) for `rows` rows of `from`; beyond the last row stands 0.
HILOMOE_CLONES void PairRows(size_t rows, size_t columns, const float* __restrict from, size_t ld,
                             uint32_t* __restrict to, size_t ldt) {
  for (; rows >= 2; rows -= 2, from += 2 * ld, to += ldt) {
    for (size_t c = 0; c < columns; ++c) to[c] = Cell(from[c], from[ld + c]);
  }
  if (rows == 0) return;
  for (size_t c = 0; c < columns; ++c) to[c] = Cell(from[c], 0);
}

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

// One product of blocks: what Bfloat16Gemm goes through.
class Blocks {
 public:
  Blocks(bool transpose_a, bool transpose_b, size_t n, size_t k)
      : transpose_a_(transpose_a),
        transpose_b_(transpose_b),
        depth(EqualPart(k, kDepth, 2)),
        width(EqualPart(n, kWidth, kPanel)),
        lda_(depth / 2 + kSkew) {
    thread_local Workspace workspace;
    const size_t cells_a = kRows * lda_;
    b_ = workspace.Get(width * depth / 2 + cells_a + std::max(cells_a, kPanel * depth / 2));
    a_ = b_ + width * depth / 2;
    scratch_ = a_ + cells_a;
  }

  // op(B) [terms, columns] into panels, W = op(B)^T.
  void PackB(size_t columns, size_t terms, const float* b, size_t ldb) {
    const size_t cells = (terms + 1) / 2;
    uint32_t* panel = b_;
    for (size_t first = 0; first < columns; first += kPanel, panels_end_ = panel += cells * kPanel) {
      const size_t outputs = std::min(kPanel, columns - first);
      if (outputs < kPanel) std::fill_n(panel, cells * kPanel, 0U);
      if (!transpose_b_) {
        PairRows(terms, outputs, b + first, ldb, panel, kPanel);
        continue;
      }
      kernels_.round_to_bfloat16(static_cast<int>(outputs), static_cast<int>(terms), b + first * ldb,
                                 static_cast<int>(ldb), scratch_, static_cast<int>(cells));
      Transpose4(outputs, cells, scratch_, cells, panel, kPanel);
    }
    weight_ = {kernels::Precision::kBfloat16, static_cast<int>(columns), static_cast<int>(cells), b_, nullptr, nullptr};
  }

  // C [rows, columns of the packed B] = op(A) B, or += . rows <= kRows.
  void Multiply(size_t rows, size_t terms, const float* a, size_t lda, bool add, float* c, size_t ldc) {
    if (transpose_a_) {
      PairRows(terms, rows, a, lda, scratch_, kRows);
      Transpose4((terms + 1) / 2, rows, scratch_, kRows, a_, lda_);
    } else {
      kernels_.round_to_bfloat16(static_cast<int>(rows), static_cast<int>(terms), a, static_cast<int>(lda), a_,
                                 static_cast<int>(lda_));
    }
    kernels::ProductStore store;
    if (add) {
      store.add = c;
      store.ldadd = static_cast<int>(ldc);
    }
    kernels_.product[static_cast<int>(kernels::Precision::kBfloat16)](
        weight_, static_cast<int>(rows), {a_, static_cast<int>(lda_), nullptr}, store, c, static_cast<int>(ldc));
  }

 private:
  const kernels::Kernels& kernels_ = kernels::SelectKernels();
  const bool transpose_a_, transpose_b_;

 public:
  const size_t depth, width;

 private:
  const size_t lda_;
  uint32_t *b_, *a_, *scratch_, *panels_end_;
  kernels::PackedWeight weight_;
};

}  // namespace

void Bfloat16Gemm(Transpose transpose_a, Transpose transpose_b, size_t m, size_t n, size_t k, const float* a,
                  size_t lda, const float* b, size_t ldb, bool add, float* c, size_t ldc) {
  const bool at = transpose_a == Transpose::kYes, bt = transpose_b == Transpose::kYes;
  if (k == 0 && !add) {
    for (size_t i = 0; i < m; ++i) std::fill_n(c + i * ldc, n, 0.0F);
  }
  if (m == 0 || n == 0 || k == 0) return;
  Blocks blocks(at, bt, n, k);
  for (size_t j = 0; j < n; j += blocks.width) {
    for (size_t p = 0; p < k; p += blocks.depth) {
      const size_t terms = std::min(blocks.depth, k - p);
      blocks.PackB(std::min(blocks.width, n - j), terms, b + (bt ? j * ldb + p : p * ldb + j), ldb);
      for (size_t i = 0; i < m; i += kRows) {
        blocks.Multiply(std::min(kRows, m - i), terms, a + (at ? p * lda + i : i * lda + p), lda, add || p > 0,
                        c + i * ldc + j, ldc);
      }
    }
  }
}

}  // namespace hilomoe
