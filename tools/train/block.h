// One block in training: base and experts as stacked products, batch norm, activation, dropout; forward and backward.
#ifndef HILOMOE_TOOLS_TRAIN_BLOCK_H_
#define HILOMOE_TOOLS_TRAIN_BLOCK_H_

#include <cstddef>
#include <optional>
#include <vector>

#include "model/model_spec.h"
#include "model/reference_loss.h"
#include "model/tensor_registry.h"
#include "tools/train/epilogue.h"
#include "tools/train/gemm.h"
#include "tools/train/parallel.h"
#include "tools/train/random.h"
#include "tools/train/routing.h"

namespace hilomoe {

struct BlockMode {
  bool experts = true;            // off: the base alone
  bool batch_statistics = false;  // batch norm in training mode
  bool routing_sums = false;      // collect RoutingSums
  bool bfloat16 = false;          // products round their factors; of float alone
  DropoutMask dropout = {};
  std::optional<size_t> top_k = {};      // instead of the spec's; 0 = all
  const double* fixed_scores = nullptr;  // [L*K]: every row's scores, instead of routing; excludes routing_sums
};

// What Backward must compute besides the gradient of the experts' and the routing's tensors.
struct BlockBackwardMode {
  bool backbone = true;  // gradients of base and batch norm
  bool experts = true;   // gradients of V, U and the routing
  bool input = true;     // gradient of x
  LossWeights losses;    // of the routing; embedding_l2 is not used
};

// Keeps a batch's activations between Forward and Backward. T is float or double.
template <typename T>
class TrainBlock {
 public:
  TrainBlock(const BlockSpec& block, Parallel& parallel);

  // x [B, D] must stay until Backward is done. `gap` [B] or null: see RouteForward. Writes output() [B, O].
  void Forward(const BlockTensors<const T>& tensors, const BlockMode& mode, const T* x, size_t B, T* gap);
  // doutput [B, O] is overwritten. dx [B, D] is overwritten (if asked for), gradients are added to. `scratch`, which
  // all blocks may share, grows to hold the gradient of the products, [B, stacked].
  void Backward(const BlockTensors<const T>& tensors, const BlockBackwardMode& mode, T* doutput, T* dx,
                std::vector<T>* scratch, const BlockTensors<T>& gradients);

  T* output() { return epilogue_.output(); }
  // Of the last Forward with routing_sums.
  const RoutingSums& routing_sums() const { return sums_; }
  // See Epilogue.
  void UpdateStatistics(const BlockTensors<T>& tensors) const { epilogue_.UpdateStatistics(tensors); }
  // The routing losses of the last Forward (with routing_sums), weighted.
  double RoutingLoss(const BlockTensors<const T>& tensors, const LossWeights& weights) const;
  // Logits before scale and offset [B, L*K], of the last Forward.
  const std::vector<T>& raw_logits() const { return raw_; }

 private:
  size_t stack() const { return mode_.experts ? block_.stack() : 0; }
  // Columns of z_: [y | A], and R = x (V Wq)^T where the query is projected; else R is A.
  size_t stacked() const { return mode_.experts ? block_.stacked_rows() : block_.width; }
  size_t r_column() const { return stacked() - stack(); }
  // C = op(A) op(B), or C += with `add`, in the mode's precision; conventions as Gemm.
  void Product(Transpose transpose_a, Transpose transpose_b, size_t m, size_t n, size_t k, const T* a, size_t lda,
               const T* b, size_t ldb, bool add, T* c, size_t ldc) const;
  RoutingLossGradient LossGradient(const LossWeights& weights) const;

  BlockSpec block_;  // top_k: that of the last Forward
  const size_t spec_top_k_;
  Parallel& parallel_;
  BlockMode mode_;
  const T* x_ = nullptr;
  size_t B_ = 0;
  std::vector<T> z_;                                   // [B, stacked]: base output (then y), A, R
  std::vector<T> projected_v_, projected_v_gradient_;  // V Wq [L*K, D]
  Epilogue<T> epilogue_;
  std::vector<T> nu_, raw_, s_, gated_;  // [B], [B, L*K] each
  std::vector<T> gram_;                  // [L*K, L*K]
  std::vector<T> dh_, dnu_;
  RoutingSums sums_;
  std::vector<RoutingSums> thread_sums_;
  std::vector<RoutingGradients<T>> thread_gradients_;
};

// V <- V + w * gradient of |V^ V^T - I|^2 / max(1, K(K-1)) summed over layers; returns that sum. dv may be null.
template <typename T>
double DiversityLoss(const BlockSpec& block, const T* v, double weight, T* dv);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_BLOCK_H_
