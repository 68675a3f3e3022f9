// The activations that need more than their output to go backward: SiLU and Dice. T is float or double. All work on
// columns [begin, end) of row-major [B, O] matrices, so that threads share no column.
#ifndef HILOMOE_TOOLS_TRAIN_ACTIVATION_H_
#define HILOMOE_TOOLS_TRAIN_ACTIVATION_H_

#include <cstddef>
#include <vector>

#include "model/tensor_registry.h"

namespace hilomoe {

// out = n sigmoid(n)
template <typename T>
void SiluForward(const T* n, size_t B, size_t O, size_t begin, size_t end, T* out);
// dn = dout (p + n p (1 - p)), p = sigmoid(n); dn [B, lddn], dout [B, O].
template <typename T>
void SiluBackward(const T* n, const T* dout, size_t B, size_t O, size_t begin, size_t end, T* dn, size_t lddn);

// out = n (p + a (1 - p)), p = sigmoid((n - mean) / sqrt(variance + eps)): mean and variance of the batch in training
// mode, else the running ones.
template <typename T>
class Dice {
 public:
  explicit Dice(size_t width) : mean_(width), variance_(width), inverse_deviation_(width) {}

  void Forward(const BlockTensors<const T>& tensors, bool batch_statistics, const T* n, size_t B, size_t O,
               size_t begin, size_t end, T* out);
  // After Forward with the same n. The gradient of a is added to `da` (null: not asked for).
  void Backward(const BlockTensors<const T>& tensors, bool batch_statistics, const T* n, const T* dout, size_t B,
                size_t O, size_t begin, size_t end, T* dn, size_t lddn, T* da) const;

  const std::vector<T>& mean() const { return mean_; }
  const std::vector<T>& variance() const { return variance_; }  // biased

 private:
  std::vector<T> mean_, variance_, inverse_deviation_;
};

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_ACTIVATION_H_
