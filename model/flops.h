// Floating-point operations of a model: a multiply-add is 2; look-ups, norms, activations and the softmax are 0.
// Attention counts as it is served, over a history of max_length.
#ifndef HILOMOE_MODEL_FLOPS_H_
#define HILOMOE_MODEL_FLOPS_H_

#include <cstdint>
#include <string>

#include "model/model_spec.h"

namespace hilomoe {

struct Flops {
  uint64_t row = 0;        // a flat row
  uint64_t dense_row = 0;  // the same network without experts
  uint64_t request = 0;    // compute-once: the context's part, once per request
  uint64_t candidate = 0;  // compute-once: the rest, per candidate
};

Flops CountFlops(const ModelSpec& spec);

// "row 430,720 (without experts 400,800, +7.5 %), compute-once: request 12,000, candidate 418,720"
std::string FlopsText(const Flops& flops);

}  // namespace hilomoe

#endif  // HILOMOE_MODEL_FLOPS_H_
