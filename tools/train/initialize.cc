#include "tools/train/initialize.h"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <vector>

#include "Eigen/Dense"
#include "absl/strings/match.h"
#include "tools/train/random.h"

#define XXH_INLINE_ALL
#include "xxhash.h"

namespace hilomoe {
namespace {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

void FillNormal(Random random, double deviation, float* out, size_t n) {
  for (size_t i = 0; i < n; ++i) out[i] = static_cast<float>(deviation * random.Normal());
}

// K orthonormal rows of length D; when K > D, orthonormal columns scaled so that rows have unit length on average.
void FillOrthonormal(Random random, size_t K, size_t D, float* out) {
  const size_t tall = std::max(K, D), wide = std::min(K, D);
  Matrix normal(static_cast<Eigen::Index>(tall), static_cast<Eigen::Index>(wide));
  FillNormal(random, 1, normal.data(), tall * wide);
  const Eigen::HouseholderQR<Matrix> qr(normal);
  const Matrix q = qr.householderQ() * Matrix::Identity(normal.rows(), normal.cols());
  const float scale = K > D ? std::sqrt(static_cast<float>(K) / static_cast<float>(D)) : 1.0F;
  for (size_t i = 0; i < K; ++i) {
    for (size_t d = 0; d < D; ++d) {
      const auto row = static_cast<Eigen::Index>(K > D ? i : d), column = static_cast<Eigen::Index>(K > D ? d : i);
      out[i * D + d] = scale * q(row, column);
    }
  }
}

}  // namespace

void InitializeWeights(const ModelSpec& spec, const TensorRegistry& registry, uint64_t seed, float embedding_deviation,
                       float* weights) {
  const ModelTensors<float> tensors = registry.Bind(spec, weights);
  const auto stream = [&](const TensorSpec& tensor) {
    return Random(seed, XXH3_64bits(tensor.name.data(), tensor.name.size()));
  };
  for (const TensorSpec& tensor : registry.tensors()) {
    float* out = weights + tensor.offset;
    if (absl::StartsWith(tensor.name, "linear.")) continue;
    if (tensor.group == TensorGroup::kEmbedding) {
      FillNormal(stream(tensor), embedding_deviation, out, tensor.size);
      if (tensor.shape.size() == 2) std::fill_n(out, tensor.shape[1], 0.0F);  // the out-of-vocabulary row
    } else if (tensor.name == "head.weight") {
      FillNormal(stream(tensor), std::sqrt(2.0 / static_cast<double>(tensor.size + 1)), out, tensor.size);
    } else if (absl::EndsWith(tensor.name, ".base.weight") || absl::StartsWith(tensor.name, "attention.")) {
      FillNormal(stream(tensor), std::sqrt(2.0 / static_cast<double>(tensor.shape[0] + tensor.shape[1])), out,
                 tensor.size);
    }
  }
  for (size_t b = 0; b < spec.blocks().size(); ++b) {
    const BlockSpec& block = spec.blocks()[b];
    const BlockTensors<float>& t = tensors.blocks[b];
    if (block.batch_norm) {
      std::fill_n(t.gamma, block.width, 1.0F);
      std::fill_n(t.running_variance, block.width, 1.0F);
    }
    if (t.dice_variance != nullptr) std::fill_n(t.dice_variance, block.width, 1.0F);
    if (block.projected_query) {
      for (size_t d = 0; d < block.input; ++d) t.query[d * block.input + d] = 1;
    }
    if (block.layers == 0) continue;
    const size_t K = block.experts, D = block.input;
    t.alpha[0] = 1;
    std::fill_n(t.tau, block.layers, static_cast<float>(1 / std::sqrt(static_cast<double>(D))));
    for (size_t l = 0; l < block.layers; ++l) {
      const Random random(seed, 0x56, b, l);
      float* v = t.v + l * K * D;
      if (block.calibrated) {
        FillOrthonormal(random, K, D, v);
      } else {
        FillNormal(random, std::sqrt(2.0 / static_cast<double>(K + D)), v, K * D);
      }
    }
  }
}

void CalibrateRouting(const ModelSpec& spec, const TensorRegistry& registry, const EncodedBatch& batch,
                      Network<float>& network, float* weights) {
  const size_t B = batch.candidate_rows;
  const ModelTensors<float> tensors = registry.Bind(spec, weights);
  const ModelTensors<const float> constant = registry.Bind<const float>(spec, weights);
  std::vector<float> logits(B);
  const ForwardMode mode{.experts = true};
  for (size_t b = 0; b < spec.blocks().size(); ++b) {
    const BlockSpec& block = spec.blocks()[b];
    if (block.layers == 0 || !block.calibrated) continue;
    const BlockTensors<float>& t = tensors.blocks[b];
    const size_t K = block.experts, n = block.stack();
    t.alpha[0] = 1;
    network.Forward(constant, batch, mode, absl::MakeSpan(logits));
    if (!block.unit_query) {
      double sum = 0;
      const float* x = network.block_input(b);
      for (size_t r = 0; r < B; ++r) {
        double squared = 0;
        for (size_t d = 0; d < block.input; ++d)
          squared += static_cast<double>(x[r * block.input + d]) * x[r * block.input + d];
        sum += std::sqrt(squared);
      }
      t.alpha[0] = sum > 0 ? static_cast<float>(static_cast<double>(B) / sum) : 1;
    }
    // A layer's logits depend on the layers before it only, so they are set one after another.
    for (size_t l = 0; l < block.layers; ++l) {
      network.Forward(constant, batch, mode, absl::MakeSpan(logits));
      const std::vector<float>& raw = network.blocks()[b]->raw_logits();
      std::vector<double> mean(K, 0);
      double squared = 0;
      for (size_t r = 0; r < B; ++r) {
        for (size_t i = 0; i < K; ++i) mean[i] += raw[r * n + l * K + i] / static_cast<double>(B);
      }
      for (size_t r = 0; r < B; ++r) {
        for (size_t i = 0; i < K; ++i) {
          const double distance = raw[r * n + l * K + i] - mean[i];
          squared += distance * distance;
        }
      }
      const double deviation = std::sqrt(squared / static_cast<double>(B * K));
      t.tau[l] = deviation > 0 ? static_cast<float>(1 / deviation) : 1;
      for (size_t i = 0; i < K; ++i) t.c[l * K + i] = static_cast<float>(-t.tau[l] * mean[i]);
    }
  }
}

}  // namespace hilomoe
