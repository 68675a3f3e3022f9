#include "tools/train/optimizer.h"

#include <cmath>

namespace hilomoe {

Adam::Adam(const v1::Optimizer& config, const TensorRegistry& registry, Parallel& parallel)
    : config_(config), registry_(registry), parallel_(parallel) {
  for (size_t i = 0; i < registry.tensors().size(); ++i) {
    const TensorSpec& tensor = registry.tensors()[i];
    m_offset_.push_back(m_size_);
    v_offset_.push_back(v_size_);
    m_size_ += rowwise(i) ? 0 : tensor.size;
    v_size_ += rowwise(i) ? tensor.shape[0] : tensor.size;
  }
}

void Adam::Reset() {
  m_.assign(m_size_, 0);
  v_.assign(v_size_, 0);
  steps_ = 0;
}

// Thread t's rows: those of its part when touched; with DENSE also every untouched row of the part.
double Adam::TableSquaredNorm(size_t table, const TableGradient<float>& gradient, const float* weights,
                              int thread) const {
  const TensorSpec& tensor = registry_.tensors()[table];
  const size_t d = tensor.shape[1], parts = gradient.parts.size();
  const auto& part = gradient.parts[static_cast<size_t>(thread)];
  const float l2 = config_.embedding_l2();
  const float* w = weights + tensor.offset;
  double sum = 0;
  if (config_.embedding_update() != v1::Optimizer::DENSE || l2 == 0) {
    for (size_t n = 0; n < part.rows.size(); ++n) {
      for (size_t j = 0; j < d; ++j) {
        const float g = part.values[n * d + j] + l2 * w[part.rows[n] * d + j];
        sum += static_cast<double>(g) * g;
      }
    }
    return sum;
  }
  for (size_t row = static_cast<size_t>(thread); row < tensor.shape[0]; row += parts) {
    const int32_t slot = gradient.slot[row];
    const float* g = slot >= 0 ? &part.values[static_cast<size_t>(slot) * d] : nullptr;
    for (size_t j = 0; j < d; ++j) {
      const float value = (g != nullptr ? g[j] : 0) + l2 * w[row * d + j];
      sum += static_cast<double>(value) * value;
    }
  }
  return sum;
}

void Adam::UpdateTable(size_t table, const TableGradient<float>& gradient, const AdamUpdate& update, float* weights,
                       int thread) {
  const TensorSpec& tensor = registry_.tensors()[table];
  const size_t d = tensor.shape[1], parts = gradient.parts.size();
  const auto& part = gradient.parts[static_cast<size_t>(thread)];
  const float l2 = update.l2;
  if (rowwise(table)) {
    for (size_t n = 0; n < part.rows.size(); ++n) {
      float* w = weights + tensor.offset + part.rows[n] * d;
      const auto gradient_of = [&](size_t j) { return update.scale * (part.values[n * d + j] + l2 * w[j]); };
      float squared = 0;
      for (size_t j = 0; j < d; ++j) squared += gradient_of(j) * gradient_of(j);
      float& v = v_[v_offset_[table] + part.rows[n]];
      v += squared / static_cast<float>(d);
      const float rate = update.rate / (std::sqrt(v) + config_.epsilon());
      for (size_t j = 0; j < d; ++j) w[j] -= rate * gradient_of(j);
    }
    return;
  }
  const auto update_row = [&](size_t row, const float* g) {
    float* w = weights + tensor.offset + row * d;
    float* m = &m_[m_offset_[table] + row * d];
    float* v = &v_[v_offset_[table] + row * d];
    UpdateAdam(d, update, g, m, v, w);
  };
  if (config_.embedding_update() == v1::Optimizer::LAZY) {
    for (size_t n = 0; n < part.rows.size(); ++n) update_row(part.rows[n], &part.values[n * d]);
    return;
  }
  for (size_t row = static_cast<size_t>(thread); row < tensor.shape[0]; row += parts) {
    const int32_t slot = gradient.slot[row];
    update_row(row, slot >= 0 ? &part.values[static_cast<size_t>(slot) * d] : nullptr);
  }
}

double Adam::Step(const GroupRates& rates, double schedule, const float* gradients,
                  std::vector<TableGradient<float>>& tables, float* weights) {
  const auto rate_of = [&](const TensorSpec& tensor) { return rates[static_cast<size_t>(tensor.group)]; };
  // Numeric vectors are embeddings, too, but few enough to be treated like any dense tensor.
  const auto l2_of = [&](const TensorSpec& tensor) {
    return tensor.group == TensorGroup::kEmbedding ? config_.embedding_l2() : 0;
  };
  std::vector<double> squared(static_cast<size_t>(parallel_.threads()));
  parallel_.Run([&](int t) {
    double sum = 0;
    for (size_t i = 0; i < registry_.tensors().size(); ++i) {
      const TensorSpec& tensor = registry_.tensors()[i];
      if (rate_of(tensor) == 0) continue;
      if (i < registry_.gathered()) {
        sum += TableSquaredNorm(i, tables[i], weights, t);
        continue;
      }
      const float l2 = l2_of(tensor);
      const auto [begin, end] = parallel_.Slice(tensor.size, t, 16);
      for (size_t at = tensor.offset + begin; at < tensor.offset + end; ++at) {
        const float g = gradients[at] + l2 * weights[at];
        sum += static_cast<double>(g) * g;
      }
    }
    squared[static_cast<size_t>(t)] = sum;
  });
  double norm = 0;
  for (const double sum : squared) norm += sum;
  norm = std::sqrt(norm);
  if (!std::isfinite(norm)) return norm;

  ++steps_;
  const double t = static_cast<double>(steps_);
  AdamUpdate update{};
  update.beta1 = config_.beta1();
  update.beta2 = config_.beta2();
  update.epsilon = config_.epsilon();
  update.scale = 1;
  if (config_.gradient_clip_norm() > 0 && norm > config_.gradient_clip_norm()) {
    update.scale = static_cast<float>(config_.gradient_clip_norm() / (norm + 1e-6));
  }
  update.correction1 = static_cast<float>(1 / (1 - std::pow(static_cast<double>(config_.beta1()), t)));
  update.correction2 = static_cast<float>(1 / (1 - std::pow(static_cast<double>(config_.beta2()), t)));
  parallel_.Run([&](int thread) {
    for (size_t i = 0; i < registry_.tensors().size(); ++i) {
      const TensorSpec& tensor = registry_.tensors()[i];
      AdamUpdate own = update;
      own.rate = rate_of(tensor);
      own.l2 = l2_of(tensor);
      if (own.rate == 0) continue;
      if (rowwise(i)) own.rate = static_cast<float>(schedule * config_.table_learning_rate());
      if (i < registry_.gathered()) {
        UpdateTable(i, tables[i], own, weights, thread);
        continue;
      }
      const auto [begin, end] = parallel_.Slice(tensor.size, thread, 16);
      UpdateAdam(end - begin, own, gradients + tensor.offset + begin, m_.data() + m_offset_[i] + begin,
                 v_.data() + v_offset_[i] + begin, weights + tensor.offset + begin);
    }
  });
  return norm;
}

}  // namespace hilomoe
