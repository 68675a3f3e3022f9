#include "tools/bench/layer_by_layer.h"

#include <algorithm>
#include <cmath>

#include "model/reference.h"
#include "model/stored_matrix.h"
#include "runtime/packed_product.h"

namespace hilomoe::bench {

namespace {

// `count` rows of a matrix.
StoredMatrix Rows(const StoredMatrix& matrix, size_t first, size_t count) {
  return {matrix.precision, matrix.row(first), count, matrix.columns};
}

}  // namespace

struct LayerByLayer::Block {
  Block(const BlockSpec& spec, const ServingBlockTensors<const StoredMatrix>& matrices)
      : base(Rows(*matrices.stacked_weight, 0, spec.width), 0, spec.input),
        y(kTileRows * spec.width),
        q(kTileRows * spec.input),
        a(kTileRows * spec.experts),
        r(a.size()),
        s(a.size()),
        gated(a.size()),
        step(q.size()),
        index(a.size()),
        zero(spec.width) {
    for (size_t l = 0; l < spec.layers; ++l) {
      const StoredMatrix v = Rows(*matrices.stacked_weight, spec.width + l * spec.experts, spec.experts);
      u.push_back(Rows(*matrices.u, l * spec.experts, spec.experts));
      inputs.emplace_back(v, 0, spec.input);
      steps.emplace_back(v, 0, spec.experts, true);
      experts.emplace_back(u[l], 0, spec.experts, true);
    }
  }

  PackedProduct base;                   // x W0^T
  std::vector<PackedProduct> inputs;    // per layer x V_l^T, and q V_l^T
  std::vector<PackedProduct> steps;     // per layer s V_l
  std::vector<PackedProduct> experts;   // per layer (a * s) U_l
  std::vector<StoredMatrix> u;          // per layer U_l [K, O]
  AlignedVector<float> y;               // [kTileRows, O]
  AlignedVector<float> q;               // [kTileRows, D]
  AlignedVector<float> a, r, s, gated;  // [kTileRows, K]
  AlignedVector<float> step;            // s V_l [kTileRows, D]
  AlignedVector<int32_t> index;         // the kept experts
  AlignedVector<float> zero;            // [O]
};

LayerByLayer::LayerByLayer(const Predictor& predictor)
    : predictor_(predictor),
      gather_(predictor.file().spec(), predictor.file().tensors().features, predictor.file().matrices().features,
              predictor.kernels()),
      x_(kTileRows * predictor.file().spec().input_width()),
      logits_(kTileRows) {
  const ModelFile& file = predictor.file();
  for (size_t i = 0; i < file.spec().blocks().size(); ++i) {
    blocks_.push_back(std::make_unique<Block>(file.spec().blocks()[i], file.matrices().blocks[i]));
  }
}
LayerByLayer::~LayerByLayer() = default;

void LayerByLayer::RunBlock(size_t index, int rows) {
  const BlockSpec& spec = predictor_.file().spec().blocks()[index];
  const ServingBlockTensors<const float>& tensors = predictor_.file().tensors().blocks[index];
  const kernels::Kernels& kernels = predictor_.kernels();
  const AlignedVector<float>& x = index == 0 ? x_ : blocks_[index - 1]->y;
  Block& block = *blocks_[index];
  const int D = static_cast<int>(spec.input), O = static_cast<int>(spec.width);
  const int K = static_cast<int>(spec.experts), k = static_cast<int>(spec.top_k);
  const auto run = [&](const PackedProduct& product, const AlignedVector<float>& from, int ldx,
                       const kernels::ProductStore& store, AlignedVector<float>* to) {
    product.Run(kernels, rows, from.data(), ldx, store, to->data(), product.outputs(), nullptr);
  };
  run(block.base, x, D, {}, &block.y);
  kernels.squared_norm(rows, D, x.data(), D, logits_.data());
  for (int row = 0; row < rows; ++row) {
    const float norm = std::max(std::sqrt(logits_[row]), static_cast<float>(kMinQueryNorm));
    const float scale = tensors.alpha[0] / norm;
    for (size_t d = 0; d < spec.input; ++d) block.q[row * spec.input + d] = scale * x[row * spec.input + d];
  }
  for (size_t l = 0; l < spec.layers; ++l) {
    const bool last = l + 1 == spec.layers;
    // One layer has no earlier scores, so that its Gram matrix is not read.
    const kernels::Routing routing{1, K, k, 1.0F, tensors.tau + l, tensors.c + l * spec.experts, tensors.gram};
    const float* const bias = last ? tensors.bias : block.zero.data();
    const auto activation = last ? kernels::Activation::kRelu : kernels::Activation::kIdentity;
    run(block.inputs[l], x, D, {}, &block.a);
    run(block.inputs[l], block.q, D, {}, &block.r);
    if (k > 0) {
      kernels.route_top_k(routing, rows, block.a.data(), block.r.data(), K, nullptr, block.gated.data(), k,
                          block.index.data(), k, block.s.data(), K);
      kernels.add_experts_top_k(rows, O, k, block.gated.data(), k, block.index.data(), k,
                                reinterpret_cast<const float*>(block.u[l].data), O, bias, activation, block.y.data(),
                                O);
    } else {
      kernels.route_dense(routing, rows, block.a.data(), block.r.data(), K, nullptr, block.gated.data(), K,
                          block.s.data(), K);
      run(block.experts[l], block.gated, K, {block.y.data(), O, bias, activation}, &block.y);
    }
    if (last) break;
    run(block.steps[l], block.s, K, {}, &block.step);
    kernels.add(rows * D, block.step.data(), block.q.data());
  }
}

void LayerByLayer::Evaluate(const EncodedBatch& batch, absl::Span<float> scores) {
  const ModelSpec& spec = predictor_.file().spec();
  const ServingTensors<const float>& tensors = predictor_.file().tensors();
  for (size_t begin = 0; begin < scores.size(); begin += kTileRows) {
    const int rows = static_cast<int>(std::min<size_t>(kTileRows, scores.size() - begin));
    for (const bool context : {true, false}) gather_.Prefetch(batch, context, begin, rows);
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
