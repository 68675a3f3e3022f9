// Target attention in training: forward and backward. See the Attention message for the formula.
#ifndef HILOMOE_TOOLS_TRAIN_ATTENTION_H_
#define HILOMOE_TOOLS_TRAIN_ATTENTION_H_

#include <cstddef>
#include <vector>

#include "model/encoded_batch.h"
#include "model/model_spec.h"
#include "model/tensor_registry.h"
#include "tools/train/embedding.h"
#include "tools/train/parallel.h"

namespace hilomoe {

// The history's positions are never projected. With p = Wk^T q per head the scores are p . h_j, and the pooled history
// c = sum_j a_j h_j is projected once: the products cost as much for a history of 50 as for one of 1.
// Keeps a batch's activations between Forward and Backward. T is float or double.
template <typename T>
class TrainAttention {
 public:
  TrainAttention(const ModelSpec& spec, size_t index, Parallel& parallel)
      : spec_(spec), attention_(spec.attention()[index]), parallel_(parallel) {}

  // Flat rows. Writes its slice of x [B, D].
  void Forward(const AttentionTensors<const T>& tensors, const FeatureTensors<const T>& features,
               const EncodedBatch& batch, T* x);
  // After Forward, from dx [B, D]. Adds to `gradients`, and to `embeddings` what the tables get: pointers into this
  // object, good until the next Forward.
  void Backward(const AttentionTensors<const T>& tensors, const EncodedBatch& batch, const T* dx,
                const AttentionTensors<T>& gradients, std::vector<EmbeddingGradient<T>>* embeddings);

 private:
  void Gather(const FeatureTensors<const T>& features, const EncodedBatch& batch, size_t begin, size_t end);
  void Pool(size_t r, const uint32_t* offsets);
  void PoolBackward(size_t r, const uint32_t* offsets);

  const ModelSpec& spec_;
  const AttentionSpec& attention_;
  Parallel& parallel_;
  std::vector<T> e_, h_;    // [B, dq], [positions, dk]
  std::vector<T> q_, p_;    // [B, inner], [B, heads * dk], the latter scaled
  std::vector<T> a_;        // [positions, heads]
  std::vector<T> c_, v_;    // [B, heads * dk], [B, inner]
  std::vector<T> de_, dh_;  // gradients, shaped as their namesakes
  std::vector<T> dq_, dp_, dc_, dv_;
};

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_ATTENTION_H_
