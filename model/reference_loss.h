// The training loss on the plain forward pass of reference.h, over the same scalars: what gradients are tested against.
#ifndef HILOMOE_MODEL_REFERENCE_LOSS_H_
#define HILOMOE_MODEL_REFERENCE_LOSS_H_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "absl/types/span.h"
#include "model/model_spec.h"
#include "model/reference.h"
#include "model/tensor_registry.h"

namespace hilomoe {

// Weights of what is added to the binary cross-entropy; see the Losses message.
struct LossWeights {
  double load_balance = 0;
  double router_z = 0;
  double diversity = 0;
  double embedding_l2 = 0;
};

// K sum_i f_i p_i of one layer; z, s [B, K] with leading dimension ld.
template <typename T>
T ReferenceLoadBalance(const T* z, const T* s, size_t ld, size_t B, size_t K, size_t top_k) {
  std::vector<T> p(K, T(0.0)), softmax(K), logits(K);
  std::vector<double> kept(K, 0);
  for (size_t r = 0; r < B; ++r) {
    logits.assign(z + r * ld, z + r * ld + K);
    ReferenceScores(logits, 0, softmax.data());
    for (size_t i = 0; i < K; ++i) {
      p[i] += softmax[i] / T(static_cast<double>(B));
      if (RealPart(s[r * ld + i]) != 0) kept[i] += 1.0 / static_cast<double>(B * std::max<size_t>(top_k, 1));
    }
  }
  T sum(0.0);
  for (size_t i = 0; i < K; ++i) sum += (top_k > 0 ? T(kept[i]) : p[i]) * p[i];
  return T(static_cast<double>(K)) * sum;
}

// mean((logsumexp(z) - ln K)^2) of one layer.
template <typename T>
T ReferenceRouterZ(const T* z, size_t ld, size_t B, size_t K) {
  using std::exp;
  using std::log;
  T sum(0.0);
  for (size_t r = 0; r < B; ++r) {
    T total(0.0);
    for (size_t i = 0; i < K; ++i) total += exp(z[r * ld + i]);
    const T excess = log(total) - T(std::log(static_cast<double>(K)));
    sum += excess * excess;
  }
  return sum / T(static_cast<double>(B));
}

// |V^ V^T - I|^2 / max(1, K(K-1)) of one layer, V^ with unit rows; a zero row is left out.
template <typename T>
T ReferenceDiversity(const T* v, size_t K, size_t D) {
  using std::sqrt;
  std::vector<T> unit(v, v + K * D);
  std::vector<bool> zero(K);
  for (size_t i = 0; i < K; ++i) {
    T squared(0.0);
    for (size_t d = 0; d < D; ++d) squared += v[i * D + d] * v[i * D + d];
    zero[i] = RealPart(squared) == 0;
    if (zero[i]) continue;
    const T norm = sqrt(squared);
    for (size_t d = 0; d < D; ++d) unit[i * D + d] = v[i * D + d] / norm;
  }
  T sum(0.0);
  for (size_t i = 0; i < K; ++i) {
    for (size_t j = 0; j < K; ++j) {
      if (i == j || zero[i] || zero[j]) continue;  // a unit row's own product is 1
      T dot(0.0);
      for (size_t d = 0; d < D; ++d) dot += unit[i * D + d] * unit[j * D + d];
      sum += dot * dot;
    }
  }
  return sum / T(static_cast<double>(std::max<size_t>(1, K * (K - 1))));
}

// sum_r w_r BCE_r / B + w_lb balance + w_z router z + w_div diversity + (l2 / 2) |embeddings|^2; see the Losses
// message. `embeddings`: every tensor of TensorGroup::kEmbedding, as one span each. sample_weights: w [B], or empty for
// all 1.
template <typename T>
T ReferenceLoss(const ModelSpec& spec, const ModelTensors<const T>& tensors, const ReferenceOutput<T>& output,
                absl::Span<const float> labels, const std::vector<absl::Span<const T>>& embeddings,
                const LossWeights& weights, absl::Span<const float> sample_weights = {}) {
  using std::exp;
  using std::log;
  const size_t B = labels.size();
  T loss(0.0);
  for (size_t r = 0; r < B; ++r) {
    const T z = output.logits[r];
    const bool positive = RealPart(z) > 0;  // log(1 + e^z) without overflow
    const T softplus = positive ? z + log(T(1.0) + exp(-z)) : log(T(1.0) + exp(z));
    const T w(sample_weights.empty() ? 1.0 : static_cast<double>(sample_weights[r]));
    loss += w * (softplus - T(labels[r]) * z) / T(static_cast<double>(B));
  }
  for (size_t b = 0; b < spec.blocks().size(); ++b) {
    const BlockSpec& block = spec.blocks()[b];
    const std::vector<T>& z = output.routing_logits[b];
    if (z.empty()) continue;
    const size_t K = block.experts, ld = block.stack();
    for (size_t l = 0; l < block.layers; ++l) {
      loss +=
          T(weights.load_balance) * ReferenceLoadBalance(&z[l * K], &output.scores[b][l * K], ld, B, K, block.top_k);
      loss += T(weights.router_z) * ReferenceRouterZ(&z[l * K], ld, B, K);
      loss += T(weights.diversity) * ReferenceDiversity(tensors.blocks[b].v + l * K * block.input, K, block.input);
    }
  }
  for (const absl::Span<const T> table : embeddings) {
    for (const T& e : table) loss += T(weights.embedding_l2 / 2) * e * e;
  }
  return loss;
}

}  // namespace hilomoe

#endif  // HILOMOE_MODEL_REFERENCE_LOSS_H_
