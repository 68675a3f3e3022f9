// Trained tensors -> served tensors: batch norm folded, W0 and V stacked, Gram matrices computed.
#ifndef HILOMOE_TOOLS_CONVERT_FOLD_H_
#define HILOMOE_TOOLS_CONVERT_FOLD_H_

#include <vector>

#include "model/model_spec.h"
#include "model/tensor_registry.h"

namespace hilomoe {

// With a = gamma / sqrt(variance + eps) per output:
//   W0[o, :] <- a_o W0[o, :],   U_l[:, o] <- a_o U_l[:, o],   b <- (b - mean) a + beta,   G = V V^T,   V Wq
// and of attention, per head, Wk^T Wq / sqrt(head width) and Wo Wv,
// computed in double, rounded once. One vector per tensor of TensorRegistry::ForServing, in its order.
std::vector<std::vector<float>> FoldTensors(const ModelSpec& spec, const TensorRegistry& training,
                                            const TensorRegistry& serving, const std::vector<float>& weights);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_CONVERT_FOLD_H_
