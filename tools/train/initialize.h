// First values of a model's tensors, and the calibration of its routing.
#ifndef HILOMOE_TOOLS_TRAIN_INITIALIZE_H_
#define HILOMOE_TOOLS_TRAIN_INITIALIZE_H_

#include <cstdint>

#include "model/encoded_batch.h"
#include "model/model_spec.h"
#include "model/tensor_registry.h"
#include "tools/train/network.h"

namespace hilomoe {

// Embeddings N(0, deviation^2) with the out-of-vocabulary row at zero; W0 and the head Xavier normal, biases 0; batch
// norm the identity; V with orthonormal rows per layer (CALIBRATED) or Xavier normal (PAPER), U 0; alpha 1, tau
// 1/sqrt(D), c 0. A function of the seed and each tensor's name, so that a change elsewhere in the model leaves the
// other tensors alone. Statistics of the log are not touched.
void InitializeWeights(const ModelSpec& spec, const TensorRegistry& registry, uint64_t seed, float embedding_deviation,
                       float* weights);

// Sets alpha, tau and c of every CALIBRATED block from a batch of training rows, in evaluation mode:
// alpha = 1 / mean |q_1|, then layer by layer tau_l such that the logits' deviation about their expert's mean is 1, and
// c_l = -mean z_l per expert. Blocks are calibrated in order, each on what the calibrated ones before it give.
void CalibrateRouting(const ModelSpec& spec, const TensorRegistry& registry, const EncodedBatch& batch,
                      Network<float>& network, float* weights);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_INITIALIZE_H_
