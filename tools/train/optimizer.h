// Adam over all parameters of a model, with clipping by global norm and L2 on the embeddings.
#ifndef HILOMOE_TOOLS_TRAIN_OPTIMIZER_H_
#define HILOMOE_TOOLS_TRAIN_OPTIMIZER_H_

#include <array>
#include <cstdint>
#include <vector>

#include "hilomoe/v1/training_config.pb.h"
#include "model/tensor_registry.h"
#include "tools/train/elementwise.h"
#include "tools/train/embedding.h"
#include "tools/train/parallel.h"

namespace hilomoe {

// Learning rate per TensorGroup; 0 = frozen.
using GroupRates = std::array<float, 7>;

// m <- b1 m + (1-b1) g,  v <- b2 v + (1-b2) g^2,  w <- w - rate * m / (1-b1^t) / (sqrt(v / (1-b2^t)) + eps)
//
// where g is the gradient of the loss with (l2/2) |E|^2, clipped: g *= clip / norm when the norm over all trained
// parameters exceeds clip. DENSE: the L2 term and the update go over every row of every table in every step. LAZY:
// rows that the batch did not touch keep weight, m and v, and get no L2; t counts steps, not touches.
// ROWWISE_ADAGRAD, for the gathered tables: touched rows only, v <- v + mean_j g_j^2 per row, w <- w - rate g /
// (sqrt(v) + eps), with the config's table_learning_rate.
class Adam {
 public:
  Adam(const v1::Optimizer& config, const TensorRegistry& registry, Parallel& parallel);

  // A new start: m = v = 0, t = 0. Due before the first step, unless m and v are set to what a saved run had.
  void Reset();
  // One step. weights, gradients: arenas of the registry; the places of the gathered() tensors in
  // `gradients` are not read (their gradients are `tables`). Returns the norm of the gradient before clipping; nothing
  // is changed when it is not finite.
  // schedule: what ROWWISE_ADAGRAD's rate is multiplied with; that of the others is in `rates`.
  double Step(const GroupRates& rates, double schedule, const float* gradients,
              std::vector<TableGradient<float>>& tables, float* weights);

  // Floats of m and v.
  size_t m_size() const { return m_size_; }
  size_t v_size() const { return v_size_; }
  // What a resumed run needs.
  std::vector<float>& m() { return m_; }
  std::vector<float>& v() { return v_; }
  uint64_t& steps() { return steps_; }

 private:
  double TableSquaredNorm(size_t table, const TableGradient<float>& gradient, const float* weights, int thread) const;
  void UpdateTable(size_t table, const TableGradient<float>& gradient, const AdamUpdate& update, float* weights,
                   int thread);
  bool rowwise(size_t tensor) const {
    return tensor < registry_.gathered() && config_.embedding_update() == v1::Optimizer::ROWWISE_ADAGRAD;
  }

  const v1::Optimizer config_;
  const TensorRegistry& registry_;
  Parallel& parallel_;
  std::vector<size_t> m_offset_, v_offset_;  // per tensor
  size_t m_size_ = 0, v_size_ = 0;
  std::vector<float> m_, v_;
  uint64_t steps_ = 0;
};

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_OPTIMIZER_H_
