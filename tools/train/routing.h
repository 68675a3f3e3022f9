// The routing chain of one block and its gradient, over rows, by Gram matrices.
//
//   G_lj = V_l V_j^T,   raw_l = alpha nu A_l + sum_{j<l} s_j G_lj^T,   z_l = tau_l raw_l + c_l,
//   s_l = softmax of the kept z_l
//
// A [B, L*K] (lda) are the experts' inputs x V^T; what is routed, `query` [B, L*K] (lda), is A itself or, where the
// query is projected, x (V Wq)^T and takes A's place above; nu [B] is 1/|x| or 1; gated = A s. All matrices are
// row-major; raw and s are [B, L*K], G is [L*K, L*K]. T is float or double. Threads: functions over a range of rows
// touch these rows alone.
#ifndef HILOMOE_TOOLS_TRAIN_ROUTING_H_
#define HILOMOE_TOOLS_TRAIN_ROUTING_H_

#include <cstddef>
#include <vector>

#include "model/model_spec.h"
#include "model/reference.h"
#include "model/tensor_registry.h"

namespace hilomoe {

// Gradients that add up over rows. Sized by Reset.
template <typename T>
struct RoutingGradients {
  double alpha = 0;
  std::vector<double> tau;  // [L]
  std::vector<double> c;    // [L*K]
  std::vector<T> gram;      // [L*K, L*K]; only j < l is used

  void Reset(const BlockSpec& block);
  void Add(const RoutingGradients& other);
};

// What the routing losses need of the whole batch, summed over rows.
struct RoutingSums {
  std::vector<double> probability;  // [L*K]: full softmax of z, all experts
  std::vector<double> kept;         // [L*K]: rows that keep the expert
  std::vector<double> score;        // [L*K]: s
  std::vector<double> entropy;      // [L]: of s, in nats
  std::vector<double> excess;       // [L]: (logsumexp(z) - ln K)^2

  void Reset(const BlockSpec& block);
  void Add(const RoutingSums& other);
};

// G, from V [L*K, D]; 0 when layers are not hierarchical.
template <typename T>
void ComputeGram(const BlockSpec& block, const T* v, T* gram);

// Rows [begin, end). `gap` [B]: lowered to the smallest distance between the k-th and the next logit; may be null.
template <typename T>
void RouteForward(const BlockSpec& block, const BlockTensors<const T>& tensors, const T* gram, size_t begin, size_t end,
                  const T* a, const T* query, size_t lda, const T* nu, T* raw, T* s, T* gated, T* gap,
                  RoutingSums* sums);

// Softmax over the kept of K logits; ties as everywhere: the lower index wins. Returns the distance between the k-th
// and the next logit.
template <typename T>
T KeptSoftmax(const T* z, size_t K, size_t top_k, T* s);

// The gradient of the routing losses with respect to z adds
//   p_i (g_i - sum_j p_j g_j) + z_scale * p_i (logsumexp(z) - ln K),   p = full softmax of z
// where g [L*K] = K f_i w_lb / B (twice that with dense routing, where f = p) and z_scale = 2 w_z / B.
struct RoutingLossGradient {
  bool active = false;
  std::vector<double> g;
  double z_scale = 0;
};

// Rows [begin, end). dh [B, L*K]: the gradient of gated; it is overwritten. da and dquery [B, L*K] (ldda), one and the
// same where A is the query, and dnu [B], the gradient of nu, are overwritten. `gradients` is added to.
template <typename T>
void RouteBackward(const BlockSpec& block, const BlockTensors<const T>& tensors, const T* gram, size_t begin,
                   size_t end, const T* a, const T* query, size_t lda, const T* nu, const T* raw, const T* s,
                   const RoutingLossGradient& loss, T* dh, T* da, T* dquery, size_t ldda, T* dnu,
                   RoutingGradients<T>* gradients);

// dV += what the gradient of G brings; V, dV [L*K, D].
template <typename T>
void GramBackward(const BlockSpec& block, const T* v, const T* gram_gradient, T* dv);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_ROUTING_H_
