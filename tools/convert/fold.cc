#include "tools/convert/fold.h"

#include <algorithm>
#include <cmath>

#include "model/reference.h"

namespace hilomoe {
namespace {

void FoldBlock(const BlockSpec& block, const BlockTensors<const float>& from, const ServingBlockTensors<float>& to) {
  const size_t D = block.input, O = block.width, n = block.stack();
  std::vector<double> a(O, 1);
  for (size_t o = 0; o < O; ++o) {
    double bias = from.base_bias[o];
    if (block.batch_norm) {
      a[o] = from.gamma[o] / std::sqrt(static_cast<double>(from.running_variance[o]) + kBatchNormEpsilon);
      bias = (bias - from.running_mean[o]) * a[o] + from.beta[o];
    }
    to.bias[o] = static_cast<float>(bias);
    for (size_t d = 0; d < D; ++d) {
      to.stacked_weight[o * D + d] = static_cast<float>(a[o] * from.base_weight[o * D + d]);
    }
  }
  if (n == 0) return;
  std::copy_n(from.v, n * D, to.stacked_weight + O * D);
  for (size_t i = 0; i < n; ++i) {
    for (size_t o = 0; o < O; ++o) to.u[i * O + o] = static_cast<float>(a[o] * from.u[i * O + o]);
    for (size_t j = 0; j < n; ++j) {
      double dot = 0;
      for (size_t d = 0; d < D; ++d) dot += static_cast<double>(from.v[i * D + d]) * from.v[j * D + d];
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
  for (size_t b = 0; b < spec.blocks().size(); ++b) FoldBlock(spec.blocks()[b], from.blocks[b], to.blocks[b]);
  return out;
}

}  // namespace hilomoe
