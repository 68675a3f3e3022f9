#include "tools/train/routing_lanes.h"

#include <algorithm>

#include "tools/train/elementwise.h"
#include "tools/train/target_clones.h"
#include "tools/train/transpose.h"

namespace hilomoe {
namespace {

// A number of every lane; the compiler splits it into the registers that the machine has.
template <typename T>
struct VectorOf {
  using Type __attribute__((vector_size(kLanes * sizeof(T)), aligned(sizeof(T)), may_alias)) = T;
};
template <typename T>
using Vector = typename VectorOf<T>::Type;

template <typename T, size_t kCount>
HILOMOE_INLINE void AddSums(size_t k, const T* m, size_t row_step, size_t column_step, const Vector<T>* x,
                            Vector<T>* out) {
  Vector<T> sum[kCount];
  for (size_t i = 0; i < kCount; ++i) sum[i] = out[i];
  for (size_t j = 0; j < k; ++j, m += column_step) {
    for (size_t i = 0; i < kCount; ++i) sum[i] += m[i * row_step] * x[j];
  }
  for (size_t i = 0; i < kCount; ++i) out[i] = sum[i];
}

template <typename T>
HILOMOE_INLINE void AddProduct(size_t n, size_t k, const T* m, size_t row_step, size_t column_step, const T* x,
                               T* out) {
  const auto* from = reinterpret_cast<const Vector<T>*>(x);
  auto* to = reinterpret_cast<Vector<T>*>(out);
  size_t i = 0;
  for (; i + 8 <= n; i += 8) AddSums<T, 8>(k, m + i * row_step, row_step, column_step, from, to + i);
  for (; i < n; ++i) AddSums<T, 1>(k, m + i * row_step, row_step, column_step, from, to + i);
}

template <typename T>
HILOMOE_INLINE void Logits(size_t K, const T* scale, const T* a, T tau, const T* c, T* raw, T* z) {
  const auto& factor = *reinterpret_cast<const Vector<T>*>(scale);
  const auto* from = reinterpret_cast<const Vector<T>*>(a);
  auto* raws = reinterpret_cast<Vector<T>*>(raw);
  auto* zs = reinterpret_cast<Vector<T>*>(z);
  for (size_t i = 0; i < K; ++i) {
    raws[i] += factor * from[i];
    zs[i] = tau * raws[i] + c[i];
  }
}

template <typename T>
HILOMOE_INLINE void Softmax(size_t K, const T* z, T* s, T* total) {
  const auto* from = reinterpret_cast<const Vector<T>*>(z);
  auto* to = reinterpret_cast<Vector<T>*>(s);
  Vector<T> largest = from[0];
  for (size_t i = 1; i < K; ++i) largest = from[i] > largest ? from[i] : largest;
  for (size_t i = 0; i < K; ++i) to[i] = from[i] - largest;
  Exponentials(K * kLanes, s);
  Vector<T> sum = to[0];
  for (size_t i = 1; i < K; ++i) sum += to[i];
  const Vector<T> scale = T(1) / sum;
  for (size_t i = 0; i < K; ++i) to[i] *= scale;
  auto& logarithm = *reinterpret_cast<Vector<T>*>(total);
  logarithm = sum;
  Logarithms(kLanes, total);
  logarithm += largest;
}

template <typename T>
HILOMOE_INLINE void SoftmaxBackward(size_t K, const T* s, const T* ds, T* out) {
  const auto* scores = reinterpret_cast<const Vector<T>*>(s);
  const auto* from = reinterpret_cast<const Vector<T>*>(ds);
  auto* to = reinterpret_cast<Vector<T>*>(out);
  Vector<T> mean = scores[0] * from[0];
  for (size_t i = 1; i < K; ++i) mean += scores[i] * from[i];
  for (size_t i = 0; i < K; ++i) to[i] = scores[i] * (from[i] - mean);
}

}  // namespace

void RowsToLanes(size_t rows, size_t n, const float* from, size_t ld, float* out) {
  if (rows < kLanes) std::fill_n(out, n * kLanes, 0.0F);
  Transpose4(rows, n, from, ld, out, kLanes);
}
void RowsToLanes(size_t rows, size_t n, const double* from, size_t ld, double* out) {
  if (rows < kLanes) std::fill_n(out, n * kLanes, 0.0);
  Transpose4(rows, n, from, ld, out, kLanes);
}

void LanesToRows(size_t rows, size_t n, const float* from, float* out, size_t ld) {
  Transpose4(n, rows, from, kLanes, out, ld);
}
void LanesToRows(size_t rows, size_t n, const double* from, double* out, size_t ld) {
  Transpose4(n, rows, from, kLanes, out, ld);
}

HILOMOE_CLONES void AddProductLanes(size_t n, size_t k, const float* m, size_t row_step, size_t column_step,
                                    const float* x, float* out) {
  AddProduct(n, k, m, row_step, column_step, x, out);
}
void AddProductLanes(size_t n, size_t k, const double* m, size_t row_step, size_t column_step, const double* x,
                     double* out) {
  AddProduct(n, k, m, row_step, column_step, x, out);
}

HILOMOE_CLONES void LogitLanes(size_t K, const float* scale, const float* a, float tau, const float* c, float* raw,
                               float* z) {
  Logits(K, scale, a, tau, c, raw, z);
}
void LogitLanes(size_t K, const double* scale, const double* a, double tau, const double* c, double* raw, double* z) {
  Logits(K, scale, a, tau, c, raw, z);
}

HILOMOE_CLONES void SoftmaxLanes(size_t K, const float* z, float* s, float* total) { Softmax(K, z, s, total); }
void SoftmaxLanes(size_t K, const double* z, double* s, double* total) { Softmax(K, z, s, total); }

HILOMOE_CLONES void SoftmaxBackwardLanes(size_t K, const float* s, const float* ds, float* out) {
  SoftmaxBackward(K, s, ds, out);
}
void SoftmaxBackwardLanes(size_t K, const double* s, const double* ds, double* out) { SoftmaxBackward(K, s, ds, out); }

}  // namespace hilomoe
