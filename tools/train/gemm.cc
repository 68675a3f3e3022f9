#include "tools/train/gemm.h"

#include <omp.h>

#include <algorithm>

#include "dnnl.h"

namespace hilomoe {
namespace {

// OpenMP keeps the number of threads per thread, so each one has to be told once.
void StayOnThisThread() {
  thread_local const bool told = [] {
    omp_set_num_threads(1);
    return true;
  }();
  (void)told;
}

}  // namespace

void Gemm(Transpose transpose_a, Transpose transpose_b, size_t m, size_t n, size_t k, float alpha, const float* a,
          size_t lda, const float* b, size_t ldb, float beta, float* c, size_t ldc) {
  if (m == 0 || n == 0) return;
  if (k == 0) {  // oneDNN would leave C as it is
    for (size_t i = 0; i < m; ++i) {
      for (size_t j = 0; j < n; ++j) c[i * ldc + j] = beta == 0 ? 0 : beta * c[i * ldc + j];
    }
    return;
  }
  StayOnThisThread();
  const auto letter = [](Transpose transpose) { return transpose == Transpose::kYes ? 'T' : 'N'; };
  const auto size = [](size_t value) { return static_cast<dnnl_dim_t>(value); };
  const auto ld = [&](size_t value) { return size(std::max<size_t>(value, 1)); };
  // Cannot fail: it refuses only negative sizes and leading dimensions that are too small.
  dnnl_sgemm(letter(transpose_a), letter(transpose_b), size(m), size(n), size(k), alpha, a, ld(lda), b, ld(ldb), beta,
             c, ld(ldc));
}

}  // namespace hilomoe
