// Routing of a single row, over the vector type of vector_common.h: *experts* go into lanes.
//
// For the few rows that would leave most lanes of vector_routing.h's tiles empty. Every number goes through the same
// operations in the same order as there, and so has the same bits.
#ifndef HILOMOE_RUNTIME_KERNELS_VECTOR_ROW_ROUTING_H_
#define HILOMOE_RUNTIME_KERNELS_VECTOR_ROW_ROUTING_H_

#include <cstdint>

#include "runtime/kernels/kernels.h"
#include "runtime/kernels/vector_common.h"

namespace hilomoe::kernels {

struct RoutingRow {
  // [L*K]: the scores of the layers done, the logits of the layer in work, and what later ones have been given.
  alignas(64) float scores[kMaxStackedExperts];
  // Top-k only, of one layer, and up to whole vectors: the logits as ordered integers, the k largest of them
  // descending, and whether an expert is kept.
  alignas(64) int32_t keys[kMaxExperts + 64];
  int32_t largest[kMaxExperts];
  bool kept[kMaxExperts];
};

// Logits of one layer, in place, from what the query and the layers before have given its experts.
template <class V>
void RowLogits(const Routing& routing, int layer, float* z) {
  const typename V::Float logit_scale = V::Broadcast(routing.logit_scale[layer]);
  const float* offset = routing.logit_offset + layer * routing.experts;
  for (int e = 0; e < routing.experts; e += V::kLanes) {
    const int count = AtMost(V::kLanes, routing.experts - e);
    V::StoreFirst(z + e, count, V::MulAdd(logit_scale, V::LoadFirst(z + e, count), V::LoadFirst(offset + e, count)));
  }
}

// Gives a layer's scores to the experts of all later ones: their chains do not wait for one another, as the steps of
// one layer's chain through all layers before it would.
template <class V>
void RowGive(const Routing& routing, int layer, float* scores) {
  const int first = layer * routing.experts, next = first + routing.experts;
  const int stack = routing.layers * routing.experts;
  for (int e = next; e < stack; e += V::kLanes) {
    const int count = AtMost(V::kLanes, stack - e);
    const float* gram = routing.gram + Offset(first, stack) + e;
    typename V::Float z = V::LoadFirst(scores + e, count);
    for (int c = first; c < next; ++c, gram += stack) {
      z = V::MulAdd(V::Broadcast(scores[c]), V::LoadFirst(gram, count), z);
    }
    V::StoreFirst(scores + e, count, z);
  }
}

// Logits to scores in place; where `kept` is given, over the kept experts, and 0 for the others.
template <class V>
void RowSoftmax(int experts, const bool* kept, float* z) {
  float largest[kSumChains] = {z[0], z[0], z[0], z[0]};
  ForEachInChains(experts, [&](int i, int chain) { largest[chain] = largest[chain] > z[i] ? largest[chain] : z[i]; });
  for (int chain = 1; chain < kSumChains; ++chain) {
    largest[0] = largest[0] > largest[chain] ? largest[0] : largest[chain];
  }
  for (int e = 0; e < experts; e += V::kLanes) {
    const int count = AtMost(V::kLanes, experts - e);
    V::StoreFirst(z + e, count, V::Exp(V::Sub(V::LoadFirst(z + e, count), V::Broadcast(largest[0]))));
  }
  float sum[kSumChains] = {};
  ForEachInChains(experts, [&](int i, int chain) {
    if (kept != nullptr && !kept[i]) z[i] = 0;
    sum[chain] += z[i];
  });
  const typename V::Float scale = V::Broadcast(1.0f / ((sum[0] + sum[1]) + (sum[2] + sum[3])));
  for (int e = 0; e < experts; e += V::kLanes) {
    const int count = AtMost(V::kLanes, experts - e);
    V::StoreFirst(z + e, count, V::Mul(scale, V::LoadFirst(z + e, count)));
  }
  for (int i = 0; kept != nullptr && i < experts; ++i) {
    if (!kept[i]) z[i] = 0;  // 0 times a NaN scale
  }
}

// As vector_routing.h's SelectTopK.
template <class V>
void RowSelectTopK(int experts, int top_k, const float* z, RoutingRow& row) {
  for (int e = 0; e < experts; e += V::kLanes) {
    V::StoreInt(row.keys + e, V::OrderedKey(V::LoadFirst(z + e, AtMost(V::kLanes, experts - e))));
  }
  for (int m = 0; m < top_k; ++m) row.largest[m] = INT32_MIN;
  for (int i = 0; i < experts; ++i) {
    int32_t key = row.keys[i];
    for (int m = 0; m < top_k; ++m) {
      const int32_t other = row.largest[m];
      row.largest[m] = other > key ? other : key;
      key = other > key ? key : other;
    }
  }
  const int32_t threshold = row.largest[top_k - 1];
  int ties = top_k;  // places that are left for logits equal to the threshold
  for (int m = 0; m < top_k; ++m) ties -= row.largest[m] > threshold ? 1 : 0;
  for (int i = 0; i < experts; ++i) {
    const bool tie = row.keys[i] == threshold && ties > 0;
    ties -= tie ? 1 : 0;
    row.kept[i] = row.keys[i] > threshold || tie;
  }
}

template <class V>
void StoreRow(int columns, const float* scores, const float* a, float* out) {
  for (int c = 0; c < columns; c += V::kLanes) {
    const int count = AtMost(V::kLanes, columns - c);
    typename V::Float s = V::LoadFirst(scores + c, count);
    if (a != nullptr) s = V::Mul(s, V::LoadFirst(a + c, count));
    V::StoreFirst(out + c, count, s);
  }
}

template <class V>
void RouteRow(const Routing& routing, const float* a, const float* r, float query_scale, float* gated, int32_t* index,
              float* scores) {
  const int experts = routing.experts, columns = routing.layers * experts;
  RoutingRow row;
  for (int e = 0; e < columns; e += V::kLanes) {
    const int count = AtMost(V::kLanes, columns - e);
    V::StoreFirst(row.scores + e, count, V::Mul(V::Broadcast(query_scale), V::LoadFirst(r + e, count)));
  }
  int stored = 0;
  for (int layer = 0; layer < routing.layers; ++layer) {
    const int first = layer * experts;
    float* z = row.scores + first;
    RowLogits<V>(routing, layer, z);
    if (index != nullptr) RowSelectTopK<V>(experts, routing.top_k, z, row);
    RowSoftmax<V>(experts, index != nullptr ? row.kept : nullptr, z);
    RowGive<V>(routing, layer, row.scores);
    for (int i = 0; index != nullptr && i < experts; ++i) {
      if (!row.kept[i]) continue;
      gated[stored] = z[i] * a[first + i];
      index[stored++] = first + i;
    }
  }
  if (scores != nullptr) StoreRow<V>(columns, row.scores, nullptr, scores);
  if (index == nullptr) StoreRow<V>(columns, row.scores, a, gated);
}

// Rows of route_dense (index null) or route_top_k, one by one.
template <class V>
void RouteRows(const Routing& routing, int rows, const float* a, const float* r, int lda, const float* inverse_norm,
               float* gated, int ldg, int32_t* index, int ldi, float* scores, int lds) {
  for (int i = 0; i < rows; ++i) {
    const float query_scale = inverse_norm != nullptr ? routing.query_scale * inverse_norm[i] : routing.query_scale;
    RouteRow<V>(routing, a + Offset(i, lda), r + Offset(i, lda), query_scale, gated + Offset(i, ldg),
                index != nullptr ? index + Offset(i, ldi) : nullptr,
                scores != nullptr ? scores + Offset(i, lds) : nullptr);
  }
}

}  // namespace hilomoe::kernels

#endif  // HILOMOE_RUNTIME_KERNELS_VECTOR_ROW_ROUTING_H_
