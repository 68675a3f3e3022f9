// Matrix products through oneDNN, the only unit that includes it. Every thread that comes here runs oneDNN on itself
// alone: its OpenMP pool would multiply with the serving and training threads.
#ifndef HILOMOE_RUNTIME_DENSE_PRODUCT_H_
#define HILOMOE_RUNTIME_DENSE_PRODUCT_H_

#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"

namespace hilomoe {

// Rows that a product takes at once. 64 rows reuse each packed weight often enough to be bound by arithmetic, and
// their inputs and outputs (64 x 624 and 64 x 464 floats of the bench model, 272 KiB) stay in a 1 MiB L2.
inline constexpr int kTileRows = 64;

// Y = X W^T with a constant weight, packed once as oneDNN likes it. Immutable; Run from any thread, each with its own
// Executor.
class DenseProduct {
 public:
  // weight [n, k], leading dimension ldw; X will have leading dimension ldx >= k, Y ldy >= n. Creates a primitive for
  // each number of rows in {1, 8, 16, 32, 64}: tens of ms, never at request time. The weight is copied.
  static absl::StatusOr<std::unique_ptr<DenseProduct>> Create(const float* weight, int n, int k, int ldw, int ldx,
                                                              int ldy);
  ~DenseProduct();

  // What one thread needs to run the product on x [kTileRows, k] -> y [kTileRows, n], both fixed for its life.
  class Executor {
   public:
    Executor(const DenseProduct& product, const float* x, float* y, std::byte* scratchpad);
    ~Executor();
    Executor(Executor&&) noexcept;
    // The first `rows` <= kTileRows rows. The rows up to the next number with a primitive are computed, too, from
    // whatever stands in x; they belong to y all the same. The result of a row depends on `rows` alone.
    void Run(int rows) const;

   private:
    struct Arguments;
    std::unique_ptr<Arguments> arguments_;
  };

  size_t scratchpad_bytes() const;

 private:
  struct State;
  explicit DenseProduct(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

enum class Transpose { kNo, kYes };

// C [m, n] = alpha op(A) op(B) + beta C, row-major with leading dimensions; op(A) is [m, k], op(B) [k, n]. On the
// calling thread alone; the same arguments give the same bits. Any sizes, zero included.
// No signal handler may run on that thread meanwhile, unless on a stack of its own (sigaltstack): oneDNN's AVX-512
// kernel lets the stack pointer point into its workspace, and the handler's frame would overwrite the heap before it.
void Gemm(Transpose transpose_a, Transpose transpose_b, size_t m, size_t n, size_t k, float alpha, const float* a,
          size_t lda, const float* b, size_t ldb, float beta, float* c, size_t ldc);

// What oneDNN runs products with on this machine: "onednn avx512", "onednn avx2", "onednn".
const char* ProductInstructionSet();

}  // namespace hilomoe

#endif  // HILOMOE_RUNTIME_DENSE_PRODUCT_H_
