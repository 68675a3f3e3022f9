#include "tools/bench/layer_by_layer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "model/reference.h"
#include "model/status_macros.h"

namespace hilomoe::bench {

// y = x W^T with a weight of its own.
struct LayerByLayer::Product {
  absl::Status Create(const float* weight, size_t n, size_t k, const float* x, float* y) {
    const int columns = static_cast<int>(n), depth = static_cast<int>(k);
    HILOMOE_ASSIGN_OR_RETURN(product, DenseProduct::Create(weight, columns, depth, depth, depth, columns));
    scratchpad.resize(product->scratchpad_bytes());
    executor = std::make_unique<DenseProduct::Executor>(*product, x, y, scratchpad.data());
    return absl::OkStatus();
  }

  std::unique_ptr<DenseProduct> product;
  std::vector<std::byte> scratchpad;
  std::unique_ptr<DenseProduct::Executor> executor;
};

struct LayerByLayer::Block {
  explicit Block(const BlockSpec& spec)
      : y(kTileRows * spec.width),
        q(kTileRows * spec.input),
        a(kTileRows * spec.experts),
        r(a.size()),
        s(a.size()),
        gated(a.size()),
        step(q.size()),
        index(a.size()),
        zero(spec.width) {}

  std::vector<float> y;                        // [kTileRows, O]
  std::vector<float> q;                        // [kTileRows, D]
  std::vector<float> a, r, s, gated;           // [kTileRows, K]
  std::vector<float> step;                     // s V_l [kTileRows, D]
  std::vector<int32_t> index;                  // the kept experts
  std::vector<float> zero;                     // [O]
  Product base;                                // x W0^T
  std::vector<Product> inputs, logits, steps;  // per layer x V_l^T, q V_l^T, s V_l
};

LayerByLayer::LayerByLayer(const Predictor& predictor)
    : predictor_(predictor),
      gather_(predictor.file().spec(), predictor.file().tensors().features, predictor.kernels()),
      x_(kTileRows * predictor.file().spec().input_width()),
      logits_(kTileRows) {}
LayerByLayer::~LayerByLayer() = default;

absl::StatusOr<std::unique_ptr<LayerByLayer>> LayerByLayer::Create(const Predictor& predictor) {
  auto evaluation = std::unique_ptr<LayerByLayer>(new LayerByLayer(predictor));
  for (size_t i = 0; i < predictor.file().spec().blocks().size(); ++i) {
    HILOMOE_RETURN_IF_ERROR(evaluation->AddBlock(i));
  }
  return evaluation;
}

absl::Status LayerByLayer::AddBlock(size_t index) {
  const BlockSpec& spec = predictor_.file().spec().blocks()[index];
  const size_t D = spec.input, O = spec.width, L = spec.layers, K = spec.experts;
  const float* const x = index == 0 ? x_.data() : blocks_[index - 1]->y.data();
  Block& block = *blocks_.emplace_back(std::make_unique<Block>(spec));
  const float* const weight = predictor_.file().tensors().blocks[index].stacked_weight;  // [W0; V_1; ... V_L]
  HILOMOE_RETURN_IF_ERROR(block.base.Create(weight, O, D, x, block.y.data()));
  block.inputs.resize(L), block.logits.resize(L), block.steps.resize(L);
  for (size_t l = 0; l < L; ++l) {
    const float* const v = weight + (O + l * K) * D;
    std::vector<float> transposed(D * K);
    for (size_t i = 0; i < K; ++i) {
      for (size_t d = 0; d < D; ++d) transposed[d * K + i] = v[i * D + d];
    }
    HILOMOE_RETURN_IF_ERROR(block.inputs[l].Create(v, K, D, x, block.a.data()));
    HILOMOE_RETURN_IF_ERROR(block.logits[l].Create(v, K, D, block.q.data(), block.r.data()));
    HILOMOE_RETURN_IF_ERROR(block.steps[l].Create(transposed.data(), D, K, block.s.data(), block.step.data()));
  }
  return absl::OkStatus();
}

void LayerByLayer::RunBlock(size_t index, int rows) {
  const BlockSpec& spec = predictor_.file().spec().blocks()[index];
  const ServingBlockTensors<const float>& tensors = predictor_.file().tensors().blocks[index];
  const kernels::Kernels& kernels = predictor_.kernels();
  const float* const x = index == 0 ? x_.data() : blocks_[index - 1]->y.data();
  Block& block = *blocks_[index];
  const size_t D = spec.input;
  const int O = static_cast<int>(spec.width), K = static_cast<int>(spec.experts), k = static_cast<int>(spec.top_k);
  block.base.executor->Run(rows);
  kernels.squared_norm(rows, static_cast<int>(D), x, static_cast<int>(D), logits_.data());
  for (int row = 0; row < rows; ++row) {
    const float norm = std::max(std::sqrt(logits_[row]), static_cast<float>(kMinQueryNorm));
    const float scale = tensors.alpha[0] / norm;
    for (size_t d = row * D; d < (row + 1) * D; ++d) block.q[d] = scale * x[d];
  }
  for (size_t l = 0; l < spec.layers; ++l) {
    const bool last = l + 1 == spec.layers;
    // One layer has no earlier scores, so that its Gram matrix is not read.
    const kernels::Routing routing{1, K, k, 1.0F, tensors.tau + l, tensors.c + l * spec.experts, tensors.gram};
    const float* const u = tensors.u + l * spec.experts * spec.width;
    const float* const bias = last ? tensors.bias : block.zero.data();
    const auto activation = last ? kernels::Activation::kRelu : kernels::Activation::kIdentity;
    block.inputs[l].executor->Run(rows);
    block.logits[l].executor->Run(rows);
    if (k > 0) {
      kernels.route_top_k(routing, rows, block.a.data(), block.r.data(), K, nullptr, block.gated.data(), k,
                          block.index.data(), k, block.s.data(), K);
      kernels.add_experts_top_k(rows, O, k, block.gated.data(), k, block.index.data(), k, u, O, bias, activation,
                                block.y.data(), O);
    } else {
      kernels.route_dense(routing, rows, block.a.data(), block.r.data(), K, nullptr, block.gated.data(), K,
                          block.s.data(), K);
      kernels.add_experts_dense(rows, O, K, block.gated.data(), K, u, O, bias, activation, block.y.data(), O);
    }
    if (last) break;
    block.steps[l].executor->Run(rows);
    kernels.add(rows * static_cast<int>(D), block.step.data(), block.q.data());
  }
}

void LayerByLayer::Evaluate(const EncodedBatch& batch, absl::Span<float> scores) {
  const ModelSpec& spec = predictor_.file().spec();
  const ServingTensors<const float>& tensors = predictor_.file().tensors();
  for (size_t begin = 0; begin < scores.size(); begin += kTileRows) {
    const int rows = static_cast<int>(std::min<size_t>(kTileRows, scores.size() - begin));
    gather_.Features(batch, true, begin, rows, x_.data());
    gather_.Features(batch, false, begin, rows, x_.data());
    for (size_t i = 0; i < blocks_.size(); ++i) RunBlock(i, rows);
    const int width = static_cast<int>(spec.deep_width());
    predictor_.kernels().head(rows, width, blocks_.back()->y.data(), width, tensors.head_weight, tensors.head_bias[0],
                              logits_.data());
    for (int r = 0; r < rows; ++r) {
      scores[begin + r] = static_cast<float>(1 / (1 + std::exp(-static_cast<double>(logits_[r]))));
    }
  }
}

double LayerByLayerFlops(const ModelSpec& spec) {
  double flops = 2.0 * static_cast<double>(spec.head_width());
  for (const BlockSpec& block : spec.blocks()) {
    const double D = static_cast<double>(block.input), O = static_cast<double>(block.width);
    const double L = static_cast<double>(block.layers), K = static_cast<double>(block.experts);
    const double kept = block.top_k > 0 ? static_cast<double>(block.top_k) : K;
    flops += 2 * D * O + L * (4 * K * D + 2 * kept * O) + std::max(L - 1, 0.0) * 2 * K * D;
  }
  return flops;
}

}  // namespace hilomoe::bench
