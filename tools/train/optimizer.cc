#include "tools/train/optimizer.h"

#include <cmath>

namespace hilomoe {

Adam::Adam(const v1::Optimizer& config, const TensorRegistry& registry, Parallel& parallel)
    : config_(config), registry_(registry), parallel_(parallel) {
  Reset();
}

void Adam::Reset() {
  m_.assign(registry_.size(), 0);
  v_.assign(registry_.size(), 0);
  steps_ = 0;
}

void Adam::UpdateOne(const Update& update, float gradient, size_t i, float* weights) {
  const float g = gradient * update.scale;
  m_[i] += (1 - config_.beta1()) * (g - m_[i]);
  v_[i] += (1 - config_.beta2()) * (g * g - v_[i]);
  weights[i] -=
      update.rate * (m_[i] * update.correction1) / (std::sqrt(v_[i] * update.correction2) + config_.epsilon());
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
  if (config_.embedding_update() == v1::Optimizer::LAZY || l2 == 0) {
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

void Adam::UpdateTable(size_t table, const TableGradient<float>& gradient, const Update& update, float* weights,
                       int thread) {
  const TensorSpec& tensor = registry_.tensors()[table];
  const size_t d = tensor.shape[1], parts = gradient.parts.size();
  const auto& part = gradient.parts[static_cast<size_t>(thread)];
  const float l2 = config_.embedding_l2();
  const auto update_row = [&](size_t row, const float* g) {
    const size_t at = tensor.offset + row * d;
    for (size_t j = 0; j < d; ++j) UpdateOne(update, (g != nullptr ? g[j] : 0) + l2 * weights[at + j], at + j, weights);
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

double Adam::Step(const GroupRates& rates, const float* gradients, std::vector<TableGradient<float>>& tables,
                  float* weights) {
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
  Update update{};
  update.scale = 1;
  if (config_.gradient_clip_norm() > 0 && norm > config_.gradient_clip_norm()) {
    update.scale = static_cast<float>(config_.gradient_clip_norm() / (norm + 1e-6));
  }
  update.correction1 = static_cast<float>(1 / (1 - std::pow(static_cast<double>(config_.beta1()), t)));
  update.correction2 = static_cast<float>(1 / (1 - std::pow(static_cast<double>(config_.beta2()), t)));
  parallel_.Run([&](int thread) {
    for (size_t i = 0; i < registry_.tensors().size(); ++i) {
      const TensorSpec& tensor = registry_.tensors()[i];
      Update own = update;
      own.rate = rate_of(tensor);
      if (own.rate == 0) continue;
      if (i < registry_.gathered()) {
        UpdateTable(i, tables[i], own, weights, thread);
        continue;
      }
      const float l2 = l2_of(tensor);
      const auto [begin, end] = parallel_.Slice(tensor.size, thread, 16);
      for (size_t at = tensor.offset + begin; at < tensor.offset + end; ++at) {
        UpdateOne(own, gradients[at] + l2 * weights[at], at, weights);
      }
    }
  });
  return norm;
}

}  // namespace hilomoe
