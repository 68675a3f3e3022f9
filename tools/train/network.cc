#include "tools/train/network.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tools/train/elementwise.h"

namespace hilomoe {

template <typename T>
Network<T>::Network(const ModelSpec& spec, const TensorRegistry& registry, Parallel& parallel)
    : spec_(spec), parallel_(parallel), embedding_(spec, registry, parallel), cross_(spec.cross_layers()) {
  for (size_t i = 0; i < spec.attention().size(); ++i) {
    attention_.push_back(std::make_unique<TrainAttention<T>>(spec, i, parallel));
  }
  for (const BlockSpec& block : spec.blocks()) blocks_.push_back(std::make_unique<TrainBlock<T>>(block, parallel));
}

template <typename T>
std::vector<typename Network<T>::Tower> Network<T>::Towers() const {
  std::vector<Tower> towers;
  const size_t deep = spec_.deep_blocks();
  if (deep > 0) towers.push_back({blocks_[deep - 1]->output(), spec_.deep_width()});
  if (!cross_.empty()) towers.push_back({cross_.back().data(), spec_.input_width()});
  if (towers.empty()) towers.push_back({x_.data(), spec_.input_width()});
  return towers;
}

template <typename T>
void Network<T>::Forward(const ModelTensors<const T>& tensors, const EncodedBatch& batch, const ForwardMode& mode,
                         absl::Span<T> logits, T* gap) {
  mode_ = mode;
  const size_t B = B_ = batch.candidate_rows, D = spec_.input_width();
  if (gap != nullptr) std::fill_n(gap, B, std::numeric_limits<T>::infinity());
  x_.resize(B * D);
  embedding_.Forward(tensors.features, batch, x_.data());
  for (size_t i = 0; i < attention_.size(); ++i) {
    attention_[i]->Forward(tensors.attention[i], tensors.features, batch, x_.data());
  }
  for (size_t b = 0; b < blocks_.size(); ++b) {
    hilomoe::BlockMode block_mode{.experts = mode.experts,
                                  .batch_statistics = mode.batch_statistics,
                                  .routing_sums = mode.routing_sums,
                                  .bfloat16 = mode.bfloat16};
    if (!mode.top_k.empty()) block_mode.top_k = mode.top_k[b];
    if (mode.fixed_scores != nullptr) block_mode.fixed_scores = (*mode.fixed_scores)[b].data();
    const float rate = spec_.blocks()[b].dropout;
    if (mode.dropout && rate > 0) block_mode.dropout = DropoutMask(rate, mode.dropout_seed, mode.step, b);
    const T* x = block_input(b);
    blocks_[b]->Forward(tensors.blocks[b], block_mode, x, B, gap);
    if (b < spec_.deep_blocks()) continue;
    std::vector<T>& out = cross_[b - spec_.deep_blocks()];
    out.resize(B * D);
    const T* y = blocks_[b]->output();
    parallel_.Run([&](int t) {
      const auto [begin, end] = parallel_.Slice(B * D, t, 16);
      for (size_t i = begin; i < end; ++i) out[i] = x_[i] * y[i] + x[i];
    });
  }
  const std::vector<Tower> towers = Towers();
  logits_.resize(B);
  parallel_.Run([&](int t) {
    const auto [begin, end] = parallel_.Slice(B, t);
    std::fill(logits_.begin() + static_cast<ptrdiff_t>(begin), logits_.begin() + static_cast<ptrdiff_t>(end),
              tensors.head_bias[0]);
    const T* weight = tensors.head_weight;
    for (const Tower& tower : towers) {
      AddDotProducts(end - begin, tower.width, tower.x + begin * tower.width, tower.width, weight,
                     logits_.data() + begin);
      weight += tower.width;
    }
    embedding_.AddLinear(tensors.features, batch, begin, end, logits_.data());
    std::copy(logits_.begin() + static_cast<ptrdiff_t>(begin), logits_.begin() + static_cast<ptrdiff_t>(end),
              logits.begin() + static_cast<ptrdiff_t>(begin));
  });
}

// Gradients of the head's weights for one tower (null: not asked for) and of the tower's output (d null: not).
template <typename T>
void Network<T>::BackwardHead(const Tower& tower, const T* weight, T* weight_gradient, std::vector<T>* d) {
  const size_t W = tower.width;
  if (weight_gradient != nullptr) {
    parallel_.Run([&](int t) {
      const auto [begin, end] = parallel_.Slice(W, t, 16);
      for (size_t r = 0; r < B_; ++r) {
        for (size_t i = begin; i < end; ++i) weight_gradient[i] += dlogits_[r] * tower.x[r * W + i];
      }
    });
  }
  if (d == nullptr) return;
  d->resize(B_ * W);
  parallel_.Run([&](int t) {
    const auto [begin, end] = parallel_.Slice(B_, t);
    for (size_t r = begin; r < end; ++r) {
      for (size_t i = 0; i < W; ++i) (*d)[r * W + i] = dlogits_[r] * weight[i];
    }
  });
}

template <typename T>
BlockBackwardMode Network<T>::BlockMode(const BackwardMode& mode, bool input) const {
  return {mode.backbone, mode_.experts && mode.experts, input, mode.losses};
}

// From d_, the gradient of the deep tower's output, to dx_.
template <typename T>
void Network<T>::BackwardDeep(const ModelTensors<const T>& tensors, const BackwardMode& mode,
                              const ModelTensors<T>& gradients) {
  for (size_t b = spec_.deep_blocks(); b-- > 0;) {
    const bool input = b > 0 || NeedsInput(mode);
    std::vector<T>& out = b > 0 ? next_ : dx_;
    if (input) out.resize(B_ * spec_.blocks()[b].input);
    blocks_[b]->Backward(tensors.blocks[b], BlockMode(mode, input), d_.data(), out.data(), &dz_, gradients.blocks[b]);
    if (b > 0) std::swap(d_, next_);
  }
  has_dx_ = NeedsInput(mode);
}

// From d_, the gradient of the last cross layer's output, to dx_.
template <typename T>
void Network<T>::BackwardCross(const ModelTensors<const T>& tensors, const BackwardMode& mode,
                               const ModelTensors<T>& gradients) {
  const size_t n = B_ * spec_.input_width();
  if (!has_dx_) dx_.assign(n, T(0));
  has_dx_ = true;
  std::vector<T> dy(n);
  next_.resize(n);
  for (size_t b = spec_.blocks().size(); b-- > spec_.deep_blocks();) {
    const T* y = blocks_[b]->output();
    parallel_.Run([&](int t) {
      const auto [begin, end] = parallel_.Slice(n, t, 16);
      for (size_t i = begin; i < end; ++i) {
        dy[i] = d_[i] * x_[i];
        dx_[i] += d_[i] * y[i];
      }
    });
    const bool input = !spec_.is_first(b) || NeedsInput(mode);
    blocks_[b]->Backward(tensors.blocks[b], BlockMode(mode, input), dy.data(), next_.data(), &dz_, gradients.blocks[b]);
    if (!input) return;
    T* to = spec_.is_first(b) ? dx_.data() : d_.data();
    parallel_.Run([&](int t) {
      const auto [begin, end] = parallel_.Slice(n, t, 16);
      for (size_t i = begin; i < end; ++i) to[i] += next_[i] + (to == dx_.data() ? d_[i] : T(0));
    });
  }
}

template <typename T>
bool Network<T>::NeedsInput(const BackwardMode& mode) const {
  return mode.embedding || (mode.backbone && !attention_.empty());
}

template <typename T>
typename Network<T>::Loss Network<T>::Backward(const ModelTensors<const T>& tensors, const EncodedBatch& batch,
                                               absl::Span<const float> labels, absl::Span<const float> sample_weights,
                                               const BackwardMode& mode, const ModelTensors<T>& gradients) {
  const size_t B = batch.candidate_rows;
  Loss loss;
  dlogits_.resize(B);
  for (size_t r = 0; r < B; ++r) {
    const double z = logits_[r];
    const double w = sample_weights.empty() ? 1 : sample_weights[r];
    loss.bce += w * (std::max(z, 0.0) + std::log1p(std::exp(-std::fabs(z))) - labels[r] * z) / static_cast<double>(B);
    dlogits_[r] = static_cast<T>(w * (1 / (1 + std::exp(-z)) - labels[r]) / static_cast<double>(B));
  }
  for (size_t b = 0; b < blocks_.size(); ++b) loss.routing += blocks_[b]->RoutingLoss(tensors.blocks[b], mode.losses);
  if (mode.head) {
    for (size_t r = 0; r < B; ++r) gradients.head_bias[0] += dlogits_[r];
  }
  // How far down gradients are needed.
  const bool below_head = mode.embedding || mode.backbone || (mode_.experts && mode.experts);
  has_dx_ = false;
  size_t column = 0;
  for (const Tower& tower : Towers()) {
    BackwardHead(tower, tensors.head_weight + column, mode.head ? gradients.head_weight + column : nullptr,
                 below_head ? &d_ : nullptr);
    const bool deep = column == 0 && spec_.deep_blocks() > 0;
    column += tower.width;
    if (!below_head) continue;
    if (deep) {
      BackwardDeep(tensors, mode, gradients);
    } else if (!cross_.empty()) {
      BackwardCross(tensors, mode, gradients);
    } else {
      std::swap(d_, dx_);
    }
  }
  if (!NeedsInput(mode)) return loss;
  std::vector<EmbeddingGradient<T>> more;
  for (size_t i = 0; i < attention_.size(); ++i) {
    attention_[i]->Backward(tensors.attention[i], batch, dx_.data(), gradients.attention[i], &more);
  }
  if (mode.embedding) embedding_.Backward(batch, dx_.data(), dlogits_.data(), more, gradients.features);
  return loss;
}

template <typename T>
void Network<T>::UpdateStatistics(const ModelTensors<T>& tensors) const {
  for (size_t b = 0; b < blocks_.size(); ++b) blocks_[b]->UpdateStatistics(tensors.blocks[b]);
}

template class Network<float>;
template class Network<double>;

}  // namespace hilomoe
