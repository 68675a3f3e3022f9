// Routing, over the vector type of vector_common.h.
//
// *Rows* go into lanes: a tile of kLanes rows is transposed on the way in and out, and the whole chain (Gram products,
// softmax, selection) is then elementwise over experts, without one reduction across lanes and with no dependence of a
// row on its neighbours. The scores of a tile (usual L*K = 64 at 16 lanes: 4 KiB) stay in the L1 cache.
// Up to V::kSingleRows rows, which would leave most lanes empty, take vector_row_routing.h's way instead.
#ifndef HILOMOE_RUNTIME_KERNELS_VECTOR_ROUTING_H_
#define HILOMOE_RUNTIME_KERNELS_VECTOR_ROUTING_H_

#include <cstdint>

#include "runtime/kernels/kernels.h"
#include "runtime/kernels/vector_common.h"
#include "runtime/kernels/vector_row_routing.h"

namespace hilomoe::kernels {

template <class V>
struct RoutingTile {
  static constexpr int kLanes = V::kLanes;

  // [L*K, kLanes]: the scores of the layers done, behind them the logits of the layer in work.
  alignas(64) float scores[kMaxStackedExperts * kLanes];
  // Top-k only, of one layer. keys [K, kLanes]: the logits as ordered integers; largest [k, kLanes]: the k largest
  // keys, descending; kept_rows [K]: bit r set where row r keeps the expert, 0 behind K up to whole vectors.
  alignas(64) int32_t keys[kMaxExperts * kLanes];
  alignas(64) int32_t largest[kMaxExperts * kLanes];
  alignas(64) int32_t kept_rows[kMaxExperts + kLanes];
};

// Reads x [rows, columns] (rows, columns <= kLanes) so that column c becomes t[c], row r its lane r; 0 elsewhere.
template <class V>
void LoadTransposed(const float* x, int ldx, int rows, int columns, typename V::Float (&t)[V::kLanes]) {
  for (int r = 0; r < V::kLanes; ++r) {
    t[r] = r < rows ? V::LoadFirst(x + Offset(r, ldx), columns) : V::Zero();
  }
  V::Transpose(t);
}

// The reverse for scores kept as one vector per expert: t[r] becomes row r.
template <class V>
void LoadScoresByRow(const float* scores, int experts, typename V::Float (&t)[V::kLanes]) {
  for (int i = 0; i < V::kLanes; ++i) t[i] = i < experts ? V::Load(scores + i * V::kLanes) : V::Zero();
  V::Transpose(t);
}

template <class V>
void Logits(const Routing& routing, int layer, int rows, const float* r, int lda, typename V::Float query_scale,
            float* scores) {
  using Float = typename V::Float;
  constexpr int kLanes = V::kLanes;
  constexpr int kBlock = V::kGramExperts;
  const int experts = routing.experts;
  const int stack = routing.layers * experts;
  const int known = layer * experts;  // scores of the layers before
  float* logits = scores + Offset(known, kLanes);
  for (int e = 0; e < experts; e += kLanes) {
    const int count = AtMost(kLanes, experts - e);
    Float t[kLanes];
    LoadTransposed<V>(r + known + e, lda, rows, count, t);
    for (int i = 0; i < count; ++i) V::Store(logits + (e + i) * kLanes, V::Mul(query_scale, t[i]));
  }
  const Float logit_scale = V::Broadcast(routing.logit_scale[layer]);
  for (int e = 0; e < experts; e += kBlock) {
    const int count = AtMost(kBlock, experts - e);
    // The last block repeats the last expert instead of branching on its size.
    int at[kBlock];
    Float z[kBlock];
    for (int i = 0; i < kBlock; ++i) {
      at[i] = AtMost(i, count - 1);
      z[i] = V::Load(logits + (e + at[i]) * kLanes);
    }
    const float* gram = routing.gram + known + e;
    for (int c = 0; c < known; ++c, gram += stack) {
      const Float s = V::Load(scores + Offset(c, kLanes));
      for (int i = 0; i < kBlock; ++i) z[i] = V::MulAdd(s, V::Broadcast(gram[at[i]]), z[i]);
    }
    for (int i = 0; i < count; ++i) {
      const Float offset = V::Broadcast(routing.logit_offset[known + e + i]);
      V::Store(logits + (e + i) * kLanes, V::MulAdd(logit_scale, z[i], offset));
    }
  }
}

// Logits to scores in place; where `kept_rows` is given, over the kept experts, and 0 for the others.
template <class V>
void Softmax(int experts, const int32_t* kept_rows, float* z) {
  using Float = typename V::Float;
  Float largest = V::Load(z);
  for (int i = 1; i < experts; ++i) largest = V::Max(largest, V::Load(z + i * V::kLanes));
  Float sum[kSumChains] = {V::Zero(), V::Zero(), V::Zero(), V::Zero()};
  ForEachInChains(experts, [&](int i, int chain) {
    Float x = V::Exp(V::Sub(V::Load(z + i * V::kLanes), largest));
    if (kept_rows != nullptr) x = V::ZeroUnless(V::FromBits(kept_rows[i]), x);
    V::Store(z + i * V::kLanes, x);
    sum[chain] = V::Add(sum[chain], x);
  });
  const Float scale = V::Div(V::Broadcast(1.0f), V::Add(V::Add(sum[0], sum[1]), V::Add(sum[2], sum[3])));
  for (int i = 0; i < experts; ++i) {
    Float x = V::Mul(scale, V::Load(z + i * V::kLanes));
    if (kept_rows != nullptr) x = V::ZeroUnless(V::FromBits(kept_rows[i]), x);  // 0 times a NaN scale
    V::Store(z + i * V::kLanes, x);
  }
}

// Finds the k-th largest logit by insertion into a sorted list, then keeps, in ascending order of experts, all above
// it and as many equal to it as the list holds: hence of equal logits the lower index.
template <class V>
void SelectTopK(int experts, int top_k, const float* z, RoutingTile<V>& tile) {
  using Int = typename V::Int;
  using Mask = typename V::Mask;
  constexpr int kLanes = V::kLanes;
  for (int m = 0; m < top_k; ++m) V::StoreInt(tile.largest + m * kLanes, V::BroadcastInt(INT32_MIN));
  for (int i = 0; i < experts; ++i) {
    Int key = V::OrderedKey(V::Load(z + i * kLanes));
    V::StoreInt(tile.keys + i * kLanes, key);
    for (int m = 0; m < top_k; ++m) {
      const Int other = V::LoadInt(tile.largest + m * kLanes);
      V::StoreInt(tile.largest + m * kLanes, V::MaxInt(other, key));
      key = V::MinInt(other, key);
    }
  }
  const Int threshold = V::LoadInt(tile.largest + (top_k - 1) * kLanes);
  Int ties = V::BroadcastInt(top_k);  // places that are left for logits equal to the threshold
  for (int m = 0; m < top_k; ++m) {
    ties = V::Decrement(ties, V::Greater(V::LoadInt(tile.largest + m * kLanes), threshold));
  }
  for (int i = 0; i < experts; ++i) {
    const Int key = V::LoadInt(tile.keys + i * kLanes);
    const Mask tie = V::And(V::Equal(key, threshold), V::Greater(ties, V::BroadcastInt(0)));
    ties = V::Decrement(ties, tie);
    tile.kept_rows[i] = V::ToBits(V::Or(V::Greater(key, threshold), tie));
  }
  for (int i = 0; i < kLanes; ++i) tile.kept_rows[experts + i] = 0;
}

template <class V>
void StoreKept(const Routing& routing, int layer, int rows, const float* a, int lda, const RoutingTile<V>& tile,
               float* gated, int ldg, int32_t* index, int ldi) {
  constexpr int kLanes = V::kLanes;
  const int first = layer * routing.experts;
  int stored[kLanes] = {};
  for (int e = 0; e < routing.experts; e += kLanes) {
    const int count = AtMost(kLanes, routing.experts - e);
    typename V::Float t[kLanes];
    LoadScoresByRow<V>(tile.scores + Offset(first + e, kLanes), count, t);
    const typename V::Int kept_rows = V::LoadInt(tile.kept_rows + e);
    for (int r = 0; r < rows; ++r) {
      const typename V::Float product = V::Mul(t[r], V::LoadFirst(a + Offset(r, lda) + first + e, count));
      const int out = layer * routing.top_k + stored[r];
      stored[r] += V::StoreSelected(V::TestBits(kept_rows, 1 << r), product, first + e, gated + Offset(r, ldg) + out,
                                    index + Offset(r, ldi) + out);
    }
  }
}

// out [rows, columns]: the tile's scores, where `a` is given times a.
template <class V>
void StoreScores(int rows, int columns, const RoutingTile<V>& tile, const float* a, int lda, float* out, int ldo) {
  constexpr int kLanes = V::kLanes;
  for (int c = 0; c < columns; c += kLanes) {
    const int count = AtMost(kLanes, columns - c);
    typename V::Float t[kLanes];
    LoadScoresByRow<V>(tile.scores + Offset(c, kLanes), count, t);
    for (int r = 0; r < rows; ++r) {
      if (a != nullptr) t[r] = V::Mul(t[r], V::LoadFirst(a + Offset(r, lda) + c, count));
      V::StoreFirst(out + Offset(r, ldo) + c, count, t[r]);
    }
  }
}

template <class V>
typename V::Float QueryScale(const Routing& routing, int rows, const float* inverse_norm) {
  const typename V::Float scale = V::Broadcast(routing.query_scale);
  return inverse_norm != nullptr ? V::Mul(scale, V::LoadFirst(inverse_norm, rows)) : scale;
}

template <class V>
void RouteDense(const Routing& routing, int rows, const float* a, const float* r, int lda, const float* inverse_norm,
                float* gated, int ldg, float* scores, int lds) {
  const int columns = routing.layers * routing.experts;
  RoutingTile<V> tile;
  for (int first = 0; first < rows; first += V::kLanes) {
    const int count = AtMost(V::kLanes, rows - first);
    const float* tile_a = a + Offset(first, lda);
    const float* tile_r = r != nullptr ? r + Offset(first, lda) : tile_a;
    const float* norm = inverse_norm != nullptr ? inverse_norm + first : nullptr;
    float* tile_scores = scores != nullptr ? scores + Offset(first, lds) : nullptr;
    if (count <= V::kSingleRows) {
      RouteRows<V>(routing, count, tile_a, tile_r, lda, norm, gated + Offset(first, ldg), ldg, nullptr, 0, tile_scores,
                   lds);
      return;
    }
    const auto scale = QueryScale<V>(routing, count, norm);
    for (int layer = 0; layer < routing.layers; ++layer) {
      Logits<V>(routing, layer, count, tile_r, lda, scale, tile.scores);
      Softmax<V>(routing.experts, nullptr, tile.scores + Offset(layer * routing.experts, V::kLanes));
    }
    if (scores != nullptr) StoreScores<V>(count, columns, tile, nullptr, 0, tile_scores, lds);
    StoreScores<V>(count, columns, tile, tile_a, lda, gated + Offset(first, ldg), ldg);
  }
}

template <class V>
void RouteTopK(const Routing& routing, int rows, const float* a, const float* r, int lda, const float* inverse_norm,
               float* gated, int ldg, int32_t* index, int ldi, float* scores, int lds) {
  RoutingTile<V> tile;
  for (int first = 0; first < rows; first += V::kLanes) {
    const int count = AtMost(V::kLanes, rows - first);
    const float* tile_a = a + Offset(first, lda);
    const float* tile_r = r != nullptr ? r + Offset(first, lda) : tile_a;
    const float* norm = inverse_norm != nullptr ? inverse_norm + first : nullptr;
    float* tile_scores = scores != nullptr ? scores + Offset(first, lds) : nullptr;
    if (count <= V::kSingleRows) {
      RouteRows<V>(routing, count, tile_a, tile_r, lda, norm, gated + Offset(first, ldg), ldg,
                   index + Offset(first, ldi), ldi, tile_scores, lds);
      return;
    }
    const auto scale = QueryScale<V>(routing, count, norm);
    for (int layer = 0; layer < routing.layers; ++layer) {
      float* z = tile.scores + Offset(layer * routing.experts, V::kLanes);
      Logits<V>(routing, layer, count, tile_r, lda, scale, tile.scores);
      SelectTopK<V>(routing.experts, routing.top_k, z, tile);
      Softmax<V>(routing.experts, tile.kept_rows, z);
      StoreKept<V>(routing, layer, count, tile_a, lda, tile, gated + Offset(first, ldg), ldg,
                   index + Offset(first, ldi), ldi);
    }
    if (scores != nullptr) {
      StoreScores<V>(count, routing.layers * routing.experts, tile, nullptr, 0, tile_scores, lds);
    }
  }
}

}  // namespace hilomoe::kernels

#endif  // HILOMOE_RUNTIME_KERNELS_VECTOR_ROUTING_H_
