// The bench model evaluated one layer of experts after the other, as a framework runs a network that is written down
// layer by layer: every layer has products of its own and its query waits for the scores of the layer before.
//
//   a = x V_l^T,  z = tau_l q V_l^T + c_l,  s = softmax(z),  q <- q + s V_l,  y <- y + (a * s) U_l
//
// Built from the same parts as the served evaluation (packed products, kernels), so that what differs is the order
// alone.
#ifndef HILOMOE_TOOLS_BENCH_LAYER_BY_LAYER_H_
#define HILOMOE_TOOLS_BENCH_LAYER_BY_LAYER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "model/encoded_batch.h"
#include "runtime/aligned_vector.h"
#include "runtime/input_gather.h"
#include "runtime/predictor.h"

namespace hilomoe::bench {

// One thread's. The predictor, of a float32 model, must outlive it.
class LayerByLayer {
 public:
  explicit LayerByLayer(const Predictor& predictor);
  ~LayerByLayer();

  // scores: one probability a candidate row of a flat batch.
  void Evaluate(const EncodedBatch& batch, absl::Span<float> scores);

 private:
  struct Block;

  void RunBlock(size_t index, int rows);

  const Predictor& predictor_;
  const InputGather gather_;
  AlignedVector<float> x_;       // [kTileRows, D]
  AlignedVector<float> logits_;  // [kTileRows]
  std::vector<std::unique_ptr<Block>> blocks_;
};

// Of a row: what the order of evaluation costs over model/flops.h, which counts the served one.
double LayerByLayerFlops(const ModelSpec& spec);

}  // namespace hilomoe::bench

#endif  // HILOMOE_TOOLS_BENCH_LAYER_BY_LAYER_H_
