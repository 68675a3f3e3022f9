// Experts, norms and the head, over the vector type of vector_common.h.
//
// Every element of an output is one chain of multiply-adds in ascending order, started from y + bias, whatever the
// tile it falls into: so tiles can be changed, and batches split, without changing a bit.
#ifndef HILOMOE_RUNTIME_KERNELS_VECTOR_EXPERTS_H_
#define HILOMOE_RUNTIME_KERNELS_VECTOR_EXPERTS_H_

#include <cstdint>

#include "runtime/kernels/kernels.h"
#include "runtime/kernels/vector_common.h"

namespace hilomoe::kernels {

// The columns of one tile: kVectors whole vectors, or (kPartial) the first `count` lanes of one.
template <class V, int kVectors, bool kPartial>
struct Columns {
  static_assert(!kPartial || kVectors == 1);
  using Float = typename V::Float;
  int count = V::kLanes;

  Float Load(const float* p, int v) const {
    if constexpr (kPartial) {
      return V::LoadFirst(p, count);
    } else {
      return V::Load(p + v * V::kLanes);
    }
  }
  void Store(float* p, int v, Float value) const {
    if constexpr (kPartial) {
      V::StoreFirst(p, count, value);
    } else {
      V::Store(p + v * V::kLanes, value);
    }
  }
  // Max(0, x) gives x where x is NaN.
  void StoreActivated(float* p, int v, Float value, Activation activation) const {
    Store(p, v, activation == Activation::kRelu ? V::Max(V::Zero(), value) : value);
  }
};

// Arguments of add_experts_top_k; u, bias and y at a tile's first column.
struct ExpertOperands {
  int n;
  const float* gated;
  int ldg;
  const int32_t* index;
  int ldi;
  const float* u;
  int ldu;
  const float* bias;
  Activation activation;
  float* y;
  int ldy;
};

static inline ExpertOperands From(ExpertOperands op, int column) {
  op.u += column;
  op.bias += column;
  op.y += column;
  return op;
}

template <class V, int kVectors, bool kPartial>
void TopKColumns(const ExpertOperands& op, int rows, Columns<V, kVectors, kPartial> columns) {
  using Float = typename V::Float;
  for (int row = 0; row < rows; ++row) {
    const float* gated = op.gated + Offset(row, op.ldg);
    const int32_t* index = op.index + Offset(row, op.ldi);
    float* y = op.y + Offset(row, op.ldy);
    Float sum[kVectors];
    for (int v = 0; v < kVectors; ++v) sum[v] = V::Add(columns.Load(y, v), columns.Load(op.bias, v));
    for (int j = 0; j < op.n; ++j) {
      const float* u = op.u + Offset(index[j], op.ldu);
      const Float g = V::Broadcast(gated[j]);
      for (int v = 0; v < kVectors; ++v) sum[v] = V::MulAdd(g, columns.Load(u, v), sum[v]);
    }
    for (int v = 0; v < kVectors; ++v) columns.StoreActivated(y, v, sum[v], op.activation);
  }
}

// Tiles of columns outside, rows inside, so that a tile's part of U is read from the L1 cache by all rows but the
// first.
template <class V>
void AddExpertsTopK(int rows, int width, int n, const float* gated, int ldg, const int32_t* index, int ldi,
                    const float* u, int ldu, const float* bias, Activation activation, float* y, int ldy) {
  constexpr int kVectors = V::kTopKVectors;
  constexpr int kTile = kVectors * V::kLanes;
  const ExpertOperands op{n, gated, ldg, index, ldi, u, ldu, bias, activation, y, ldy};
  int first = 0;
  for (; first + kTile <= width; first += kTile) TopKColumns<V>(From(op, first), rows, Columns<V, kVectors, false>());
  for (; first + V::kLanes <= width; first += V::kLanes) {
    TopKColumns<V>(From(op, first), rows, Columns<V, 1, false>());
  }
  if (first < width) TopKColumns<V>(From(op, first), rows, Columns<V, 1, true>{width - first});
}

template <class V>
float Dot(int width, const float* x, const float* w) {
  // Four chains: at latency 4 one addition a cycle, as fast as the two loads that it needs.
  constexpr int kChains = 4;
  typename V::Float sum[kChains];
  for (int i = 0; i < kChains; ++i) sum[i] = V::Zero();
  int d = 0;
  for (; d + kChains * V::kLanes <= width; d += kChains * V::kLanes) {
    for (int i = 0; i < kChains; ++i) {
      sum[i] = V::MulAdd(V::Load(x + d + i * V::kLanes), V::Load(w + d + i * V::kLanes), sum[i]);
    }
  }
  for (; d < width; d += V::kLanes) {
    const int count = AtMost(V::kLanes, width - d);
    sum[0] = V::MulAdd(V::LoadFirst(x + d, count), V::LoadFirst(w + d, count), sum[0]);
  }
  return V::Sum(V::Add(V::Add(sum[0], sum[1]), V::Add(sum[2], sum[3])));
}

template <class V>
void SquaredNorm(int rows, int width, const float* x, int ldx, float* out) {
  for (int r = 0; r < rows; ++r) out[r] = Dot<V>(width, x + Offset(r, ldx), x + Offset(r, ldx));
}

template <class V>
void Head(int rows, int width, const float* x, int ldx, const float* weight, float bias, float* logit) {
  for (int r = 0; r < rows; ++r) logit[r] = bias + Dot<V>(width, x + Offset(r, ldx), weight);
}

template <class V>
void Add(int width, const float* x, float* out) {
  int d = 0;
  for (; d + V::kLanes <= width; d += V::kLanes) V::Store(out + d, V::Add(V::Load(out + d), V::Load(x + d)));
  if (d == width) return;
  V::StoreFirst(out + d, width - d, V::Add(V::LoadFirst(out + d, width - d), V::LoadFirst(x + d, width - d)));
}

}  // namespace hilomoe::kernels

#endif  // HILOMOE_RUNTIME_KERNELS_VECTOR_EXPERTS_H_
