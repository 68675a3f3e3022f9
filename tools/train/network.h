// The whole network in training: embedding, blocks, head, loss; forward and backward.
#ifndef HILOMOE_TOOLS_TRAIN_NETWORK_H_
#define HILOMOE_TOOLS_TRAIN_NETWORK_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "model/encoded_batch.h"
#include "model/model_spec.h"
#include "model/reference_loss.h"
#include "model/tensor_registry.h"
#include "tools/train/attention.h"
#include "tools/train/block.h"
#include "tools/train/embedding.h"
#include "tools/train/parallel.h"

namespace hilomoe {

// How a batch passes through the network.
struct ForwardMode {
  bool experts = true;
  bool batch_statistics = false;  // batch norm in training mode
  bool routing_sums = false;      // for the routing losses and for utilisation
  bool bfloat16 = false;          // the blocks' products round their factors
  bool dropout = false;
  uint64_t dropout_seed = 0;
  uint64_t step = 0;
  absl::Span<const size_t> top_k = {};  // per block, instead of the spec's, 0 = all; empty: the spec's
  // Per block the scores [L*K] that every row gets instead of its own; for evaluation only: no Backward, no
  // routing_sums. Must outlive the Forward.
  const std::vector<std::vector<double>>* fixed_scores = nullptr;
};

// Which gradients are asked for.
struct BackwardMode {
  bool embedding = true;
  bool backbone = true;
  bool experts = true;  // V, U and routing
  bool head = true;
  LossWeights losses;  // embedding_l2 is the optimizer's
};

// Activations of one batch at a time. T is float, or double for proving the gradients. Deterministic for a number of
// threads.
template <typename T>
class Network {
 public:
  // registry: ForTraining. All outlive it.
  Network(const ModelSpec& spec, const TensorRegistry& registry, Parallel& parallel);

  // logits [B]; `gap` [B] or null: the smallest distance between the k-th and the next routing logit of any layer.
  void Forward(const ModelTensors<const T>& tensors, const EncodedBatch& batch, const ForwardMode& mode,
               absl::Span<T> logits, T* gap = nullptr);
  // After a Forward. Adds to `gradients` (the tables' go to embedding().table_gradients()) and returns the loss:
  // sum_r w_r BCE_r / B, and beside it the routing losses, weighted. sample_weights: w [B], or empty for all 1; the
  // divisor stays B, so that a row of weight 2 counts as if it stood twice among B rows.
  struct Loss {
    double bce = 0;
    double routing = 0;
  };
  Loss Backward(const ModelTensors<const T>& tensors, const EncodedBatch& batch, absl::Span<const float> labels,
                absl::Span<const float> sample_weights, const BackwardMode& mode, const ModelTensors<T>& gradients);
  // Batch norm's running statistics, after a Forward with batch_statistics.
  void UpdateStatistics(const ModelTensors<T>& tensors) const;

  Embedding<T>& embedding() { return embedding_; }
  const std::vector<std::unique_ptr<TrainBlock<T>>>& blocks() const { return blocks_; }
  // The input of block b in the last Forward, [B, D].
  const T* block_input(size_t b) const {
    if (spec_.is_first(b)) return x_.data();
    return b < spec_.deep_blocks() ? blocks_[b - 1]->output() : cross_[b - 1 - spec_.deep_blocks()].data();
  }

 private:
  // A part of the head's input: [B, width], contiguous.
  struct Tower {
    const T* x;
    size_t width;
  };
  std::vector<Tower> Towers() const;
  void BackwardHead(const Tower& tower, const T* weight, T* weight_gradient, std::vector<T>* d);
  void BackwardDeep(const ModelTensors<const T>& tensors, const BackwardMode& mode, const ModelTensors<T>& gradients);
  void BackwardCross(const ModelTensors<const T>& tensors, const BackwardMode& mode, const ModelTensors<T>& gradients);
  bool NeedsInput(const BackwardMode& mode) const;  // the gradient of x
  BlockBackwardMode BlockMode(const BackwardMode& mode, bool input) const;

  const ModelSpec& spec_;
  Parallel& parallel_;
  Embedding<T> embedding_;
  std::vector<std::unique_ptr<TrainAttention<T>>> attention_;
  std::vector<std::unique_ptr<TrainBlock<T>>> blocks_;
  size_t B_ = 0;
  std::vector<T> x_;
  std::vector<std::vector<T>> cross_;  // per cross layer its output
  std::vector<T> logits_, dlogits_;
  std::vector<T> dx_;        // of x
  bool has_dx_ = false;      // a tower has written it
  std::vector<T> d_, next_;  // of the output and the input of a block
  std::vector<T> dz_;        // of a block's products; one for all, so that it stays in the cache
  ForwardMode mode_;
};

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_NETWORK_H_
