#include "tools/train/network.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace hilomoe {

template <typename T>
Network<T>::Network(const ModelSpec& spec, const std::vector<uint32_t>& table_rows, Parallel& parallel)
    : spec_(spec), parallel_(parallel), embedding_(spec, table_rows, parallel) {
  for (const BlockSpec& block : spec.blocks()) blocks_.push_back(std::make_unique<TrainBlock<T>>(block, parallel));
}

template <typename T>
void Network<T>::Forward(const ModelTensors<const T>& tensors, const EncodedBatch& batch, const ForwardMode& mode,
                         absl::Span<T> logits, T* gap) {
  mode_ = mode;
  const size_t B = batch.candidate_rows;
  if (gap != nullptr) std::fill_n(gap, B, std::numeric_limits<T>::infinity());
  x_.resize(B * spec_.input_width());
  embedding_.Forward(tensors.features, batch, x_.data());
  for (size_t b = 0; b < blocks_.size(); ++b) {
    BlockMode block_mode{mode.experts, mode.batch_statistics, mode.routing_sums, {}};
    const float rate = spec_.blocks()[b].dropout;
    if (mode.dropout && rate > 0) block_mode.dropout = DropoutMask(rate, mode.dropout_seed, mode.step, b);
    blocks_[b]->Forward(tensors.blocks[b], block_mode, block_input(b), B, gap);
  }
  const T* x = block_input(blocks_.size());
  const size_t D = spec_.head_width();
  logits_.resize(B);
  parallel_.Run([&](int t) {
    const auto [begin, end] = parallel_.Slice(B, t);
    for (size_t r = begin; r < end; ++r) {
      T logit = tensors.head_bias[0];
      for (size_t d = 0; d < D; ++d) logit += x[r * D + d] * tensors.head_weight[d];
      logits_[r] = logits[r] = logit;
    }
  });
}

template <typename T>
typename Network<T>::Loss Network<T>::Backward(const ModelTensors<const T>& tensors, const EncodedBatch& batch,
                                               absl::Span<const float> labels, const BackwardMode& mode,
                                               const ModelTensors<T>& gradients) {
  const size_t B = batch.candidate_rows, D = spec_.head_width();
  const T* x = block_input(blocks_.size());
  Loss loss;
  dlogits_.resize(B);
  for (size_t r = 0; r < B; ++r) {
    const double z = logits_[r];
    loss.bce += (std::max(z, 0.0) + std::log1p(std::exp(-std::fabs(z))) - labels[r] * z) / static_cast<double>(B);
    dlogits_[r] = static_cast<T>((1 / (1 + std::exp(-z)) - labels[r]) / static_cast<double>(B));
  }
  for (size_t b = 0; b < blocks_.size(); ++b) loss.routing += blocks_[b]->RoutingLoss(tensors.blocks[b], mode.losses);

  // How far down gradients are needed.
  const bool all_blocks = mode.embedding || (mode_.experts && mode.experts);
  if (mode.head) {
    for (size_t r = 0; r < B; ++r) gradients.head_bias[0] += dlogits_[r];
    parallel_.Run([&](int t) {
      const auto [begin, end] = parallel_.Slice(D, t, 16);
      for (size_t r = 0; r < B; ++r) {
        for (size_t d = begin; d < end; ++d) gradients.head_weight[d] += dlogits_[r] * x[r * D + d];
      }
    });
  }
  if (!all_blocks && !mode.backbone) return loss;
  std::vector<T>* d = &d_[0];
  std::vector<T>* next = &d_[1];
  d->resize(B * D);
  parallel_.Run([&](int t) {
    const auto [begin, end] = parallel_.Slice(B, t);
    for (size_t r = begin; r < end; ++r) {
      for (size_t i = 0; i < D; ++i) (*d)[r * D + i] = dlogits_[r] * tensors.head_weight[i];
    }
  });
  for (size_t b = blocks_.size(); b-- > 0;) {
    BlockBackwardMode block_mode{mode.backbone, mode_.experts && mode.experts, b > 0 || mode.embedding, mode.losses};
    next->resize(B * spec_.blocks()[b].input);
    blocks_[b]->Backward(tensors.blocks[b], block_mode, d->data(), next->data(), gradients.blocks[b]);
    std::swap(d, next);
  }
  if (mode.embedding) embedding_.Backward(batch, d->data(), gradients.features);
  return loss;
}

template <typename T>
void Network<T>::UpdateStatistics(const ModelTensors<T>& tensors) const {
  for (size_t b = 0; b < blocks_.size(); ++b) blocks_[b]->UpdateStatistics(tensors.blocks[b]);
}

template class Network<float>;
template class Network<double>;

}  // namespace hilomoe
