// Matrix products through oneDNN, the only unit that includes it. Every thread that comes here runs oneDNN on itself
// alone: its OpenMP pool would multiply with the training threads.
#ifndef HILOMOE_TOOLS_TRAIN_GEMM_H_
#define HILOMOE_TOOLS_TRAIN_GEMM_H_

#include <cstddef>

namespace hilomoe {

enum class Transpose { kNo, kYes };

// C [m, n] = alpha op(A) op(B) + beta C, row-major with leading dimensions; op(A) is [m, k], op(B) [k, n]. On the
// calling thread alone; the same arguments give the same bits. Any sizes, zero included.
// No signal handler may run on that thread meanwhile, unless on a stack of its own (sigaltstack): oneDNN's AVX-512
// kernel lets the stack pointer point into its workspace, and the handler's frame would overwrite the heap before it.
void Gemm(Transpose transpose_a, Transpose transpose_b, size_t m, size_t n, size_t k, float alpha, const float* a,
          size_t lda, const float* b, size_t ldb, float beta, float* c, size_t ldc);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_GEMM_H_
