// What follows a block's products in training: bias, batch norm, activation, dropout; forward and backward.
#ifndef HILOMOE_TOOLS_TRAIN_EPILOGUE_H_
#define HILOMOE_TOOLS_TRAIN_EPILOGUE_H_

#include <cstddef>
#include <functional>
#include <vector>

#include "model/model_spec.h"
#include "model/tensor_registry.h"
#include "tools/train/activation.h"
#include "tools/train/parallel.h"
#include "tools/train/random.h"

namespace hilomoe {

// Keeps a batch's activations between Forward and Backward. T is float or double.
template <typename T>
class Epilogue {
 public:
  Epilogue(const BlockSpec& block, Parallel& parallel);

  // z [B, O] (ldz) -> output() [B, O]. z must stay until Backward is done.
  void Forward(const BlockTensors<const T>& tensors, bool batch_statistics, const DropoutMask& dropout, const T* z,
               size_t ldz, size_t B);
  // doutput [B, O] (overwritten) -> dz [B, O] with z's leading dimension; adds to the gradients of bias, gamma, beta
  // and Dice's a unless `gradients` is null.
  void Backward(const BlockTensors<const T>& tensors, T* doutput, T* dz, const BlockTensors<T>* gradients);
  // After a Forward with batch_statistics: running <- 0.9 running + 0.1 batch, the variance unbiased.
  void UpdateStatistics(const BlockTensors<T>& tensors) const;

  T* output() { return output_.data(); }

 private:
  using Sums = std::vector<double>;  // [2 O]: of two kinds, one after the other
  // SiLU and Dice need what went into them; ReLU is undone from its output.
  bool keeps_normalised() const { return block_.activation == v1::Block::SILU || block_.activation == v1::Block::DICE; }
  Sums SumOverRows(const std::function<void(size_t begin, size_t end, double* first, double* second)>& add);
  void MeasureBatch(const T* bias);
  void ActivationBackward(const BlockTensors<const T>& tensors, T* doutput, T* dz, const BlockTensors<T>* gradients);
  void NormBackward(const Sums& sums, T* dz, const BlockTensors<T>* gradients);

  const BlockSpec block_;
  Parallel& parallel_;
  bool batch_statistics_ = false;
  DropoutMask dropout_;
  const T* z_ = nullptr;
  size_t ldz_ = 0, B_ = 0;
  std::vector<T> mean_, variance_, inverse_deviation_;  // [O], of z + bias
  std::vector<T> scale_, shift_, centre_;               // [O]: normalised = z scale + shift, centre = mean of z
  std::vector<T> normalised_, output_;                  // [B, O]
  std::vector<Sums> thread_sums_;
  Dice<T> dice_;
};

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_EPILOGUE_H_
