#include "tools/convert/fold.h"

#include <algorithm>
#include <cmath>

#include "model/reference.h"

namespace hilomoe {
namespace {

// out [n] = scale * x W, x [k] with stride ldx, W [k, n] with leading dimension ldw; summed up in double.
void Product(const float* x, size_t ldx, size_t k, const float* w, size_t n, double scale, float* out, size_t ldw) {
  for (size_t j = 0; j < n; ++j) {
    double sum = 0;
    for (size_t i = 0; i < k; ++i) sum += static_cast<double>(x[i * ldx]) * w[i * ldw + j];
    out[j] = static_cast<float>(scale * sum);
  }
}

// Batch norm's factor of output o.
double Factor(const BlockSpec& block, const BlockTensors<const float>& tensors, size_t o) {
  if (!block.batch_norm) return 1;
  return tensors.gamma[o] / std::sqrt(static_cast<double>(tensors.running_variance[o]) + kBatchNormEpsilon);
}

void FoldAttention(const AttentionSpec& attention, const AttentionTensors<const float>& from,
                   const ServingAttentionTensors<float>& to) {
  const size_t w = attention.head_width, dq = attention.query_width, dk = attention.history_width;
  const size_t inner = attention.inner_width(), pooled = attention.heads * dk;
  const double scale = 1 / std::sqrt(static_cast<double>(w));
  for (size_t head = 0; head < attention.heads; ++head) {
    const float* query = from.query + head * w * dq;
    const float* key = from.key + head * w * dk;
    const float* value = from.value + head * w * dk;
    for (size_t d = 0; d < dk; ++d) Product(key + d, dk, w, query, dq, scale, to.score + (head * dk + d) * dq, dq);
    for (size_t o = 0; o < attention.output_width; ++o) {
      Product(from.output + o * inner + head * w, 1, w, value, dk, 1, to.output + o * pooled + head * dk, dk);
    }
  }
}

void FoldBlock(const BlockSpec& block, const BlockTensors<const float>& from, const ServingBlockTensors<float>& to) {
  const size_t D = block.input, O = block.width, n = block.stack();
  std::vector<double> a(O);
  for (size_t o = 0; o < O; ++o) {
    double bias = from.base_bias[o];
    a[o] = Factor(block, from, o);
    if (block.batch_norm) bias = (bias - from.running_mean[o]) * a[o] + from.beta[o];
    to.bias[o] = static_cast<float>(bias);
    for (size_t d = 0; d < D; ++d) {
      to.stacked_weight[o * D + d] = static_cast<float>(a[o] * from.base_weight[o * D + d]);
    }
  }
  for (size_t o = 0; o < O && from.dice != nullptr; ++o) {
    to.dice[o] = from.dice_mean[o];
    to.dice[O + o] = static_cast<float>(1 / std::sqrt(static_cast<double>(from.dice_variance[o]) + kBatchNormEpsilon));
    to.dice[2 * O + o] = from.dice[o];
  }
  if (n == 0) return;
  for (size_t i = 0; i < n && block.projected_query; ++i) {
    Product(from.v + i * D, 1, D, from.query, D, 1, &to.stacked_weight[(O + n + i) * D], D);
  }
  std::copy_n(from.v, n * D, to.stacked_weight + O * D);
  for (size_t i = 0; i < n; ++i) {
    for (size_t o = 0; o < O; ++o) to.u[i * O + o] = static_cast<float>(a[o] * from.u[i * O + o]);
    for (size_t j = 0; j < n; ++j) {
      double dot = 0;
      for (size_t d = 0; d < D && block.hierarchical; ++d)
        dot += static_cast<double>(from.v[i * D + d]) * from.v[j * D + d];
      to.gram[i * n + j] = static_cast<float>(dot);
    }
  }
  to.alpha[0] = from.alpha[0];
  std::copy_n(from.tau, block.layers, to.tau);
  std::copy_n(from.c, n, to.c);
}

}  // namespace

std::vector<std::vector<float>> FoldTensors(const ModelSpec& spec, const TensorRegistry& training,
                                            const TensorRegistry& serving, const std::vector<float>& weights) {
  std::vector<std::vector<float>> out;
  std::vector<float*> data;
  for (const TensorSpec& tensor : serving.tensors()) {
    std::vector<float>& values = out.emplace_back(tensor.size, 0.0F);
    data.push_back(values.data());
    // What training and serving share goes over by name.
    for (const TensorSpec& trained : training.tensors()) {
      if (trained.name == tensor.name && tensor.group != TensorGroup::kDerived) {
        std::copy_n(weights.begin() + static_cast<ptrdiff_t>(trained.offset), trained.size, values.begin());
      }
    }
  }
  const auto from = training.Bind<const float>(spec, weights.data());
  const auto to = serving.BindServing(spec, data);
  for (size_t i = 0; i < spec.attention().size(); ++i) {
    FoldAttention(spec.attention()[i], from.attention[i], to.attention[i]);
  }
  for (size_t b = 0; b < spec.blocks().size(); ++b) FoldBlock(spec.blocks()[b], from.blocks[b], to.blocks[b]);
  return out;
}

}  // namespace hilomoe
