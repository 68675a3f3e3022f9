// Activations with an exponential and attention, over the vector type of vector_common.h.
#ifndef HILOMOE_RUNTIME_KERNELS_VECTOR_ACTIVATION_H_
#define HILOMOE_RUNTIME_KERNELS_VECTOR_ACTIVATION_H_

#include "runtime/kernels/kernels.h"
#include "runtime/kernels/vector_common.h"

namespace hilomoe::kernels {

// e^min(x, 0) / (1 + e^-|x|): neither exponential overflows, and both signs keep their relative precision.
template <class V>
typename V::Float Sigmoid(typename V::Float x) {
  using Float = typename V::Float;
  const Float minus_x = V::Sub(V::Zero(), x);
  const Float numerator = V::Exp(V::Sub(V::Zero(), V::Max(V::Zero(), minus_x)));
  const Float e = V::Exp(V::Sub(V::Zero(), V::Max(minus_x, x)));
  return V::Div(numerator, V::Add(V::Broadcast(1.0f), e));
}

// y <- activate(y, c) for the vectors of every row, the last one partial; c is the first column.
template <class V, class Activate>
void ActivateRows(int rows, int width, float* y, int ldy, Activate activate) {
  for (int r = 0; r < rows; ++r) {
    float* row = y + Offset(r, ldy);
    int c = 0;
    for (; c + V::kLanes <= width; c += V::kLanes) V::Store(row + c, activate(V::Load(row + c), c, V::kLanes));
    if (c < width) V::StoreFirst(row + c, width - c, activate(V::LoadFirst(row + c, width - c), c, width - c));
  }
}

template <class V>
void Silu(int rows, int width, float* y, int ldy) {
  ActivateRows<V>(rows, width, y, ldy, [](typename V::Float x, int, int) { return V::Mul(x, Sigmoid<V>(x)); });
}

template <class V>
void Dice(int rows, int width, const float* mean, const float* inverse_deviation, const float* a, float* y, int ldy) {
  using Float = typename V::Float;
  ActivateRows<V>(rows, width, y, ldy, [&](Float x, int c, int count) {
    const Float z = V::Mul(V::Sub(x, V::LoadFirst(mean + c, count)), V::LoadFirst(inverse_deviation + c, count));
    const Float p = Sigmoid<V>(z);
    return V::Mul(x, V::MulAdd(V::LoadFirst(a + c, count), V::Sub(V::Broadcast(1.0f), p), p));
  });
}

// Positions go into lanes for the scores, columns for the weighted sum: neither needs a reduction across lanes.
template <class V>
void Attend(int n, int width, const float* history, int ldh, const float* transposed, int ldt, const float* p,
            float* scores, float* out) {
  using Float = typename V::Float;
  constexpr int kLanes = V::kLanes;
  for (int j = 0; j < n; j += kLanes) {
    const int count = AtMost(kLanes, n - j);
    Float sum = V::Zero();
    for (int d = 0; d < width; ++d) {
      sum = V::MulAdd(V::Broadcast(p[d]), V::LoadFirst(transposed + Offset(d, ldt) + j, count), sum);
    }
    V::StoreFirst(scores + j, count, sum);
  }
  float largest = n > 0 ? scores[0] : 0;
  for (int j = 1; j < n; ++j) largest = scores[j] > largest ? scores[j] : largest;
  float sum = 0;
  for (int j = 0; j < n; j += kLanes) {
    const int count = AtMost(kLanes, n - j);
    V::StoreFirst(scores + j, count, V::Exp(V::Sub(V::LoadFirst(scores + j, count), V::Broadcast(largest))));
    for (int i = j; i < j + count; ++i) sum += scores[i];
  }
  const float scale = 1.0f / sum;
  for (int j = 0; j < n; ++j) scores[j] *= scale;
  for (int d = 0; d < width; d += kLanes) {
    const int count = AtMost(kLanes, width - d);
    Float total = V::Zero();
    for (int j = 0; j < n; ++j) {
      total = V::MulAdd(V::Broadcast(scores[j]), V::LoadFirst(history + Offset(j, ldh) + d, count), total);
    }
    V::StoreFirst(out + d, count, total);
  }
}

}  // namespace hilomoe::kernels

#endif  // HILOMOE_RUNTIME_KERNELS_VECTOR_ACTIVATION_H_
