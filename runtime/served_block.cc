#include "runtime/served_block.h"

#include <algorithm>
#include <cmath>

#include "model/reference.h"

namespace hilomoe {

ServedBlock::ServedBlock(const BlockSpec& block, const ServingBlockTensors<const float>& tensors,
                         const ServingBlockTensors<const StoredMatrix>& matrices, size_t split, size_t ldx)
    : spec_(block),
      tensors_(tensors),
      split_(static_cast<int>(split)),
      ldx_(static_cast<int>(ldx)),
      ldz_(static_cast<int>(WholeLines(block.stacked_rows()))),
      candidate_(*matrices.stacked_weight, split, block.input - split) {
  if (split > 0) context_ = std::make_unique<PackedProduct>(*matrices.stacked_weight, 0, split);
  if (block.layers == 0) return;
  if (block.top_k > 0) {
    kept_u_.resize(matrices.u->rows * matrices.u->columns);
    for (size_t r = 0; r < matrices.u->rows; ++r) matrices.u->ReadRow(r, &kept_u_[r * matrices.u->columns]);
  } else {
    experts_ = std::make_unique<PackedProduct>(*matrices.u, 0, matrices.u->rows, true);
  }
  // The file's row of an expert becomes a column: then the logits that a score adds to lie side by side.
  const size_t n = block.layers * block.experts;
  gram_.resize(n * n);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < n; ++j) gram_[j * n + i] = tensors.gram[i * n + j];
  }
  routing_ = {static_cast<int>(block.layers),
              static_cast<int>(block.experts),
              static_cast<int>(block.top_k),
              tensors.alpha[0],
              tensors.tau,
              tensors.c,
              gram_.data()};
}

size_t ServedBlock::bytes() const {
  return candidate_.bytes() + (context_ != nullptr ? context_->bytes() : 0) +
         (experts_ != nullptr ? experts_->bytes() : 0) + (kept_u_.size() + gram_.size()) * sizeof(float);
}

size_t ServedBlock::scratchpad_bytes() const {
  size_t bytes = candidate_.scratchpad_bytes();
  for (const PackedProduct* product : {context_.get(), experts_.get()}) {
    if (product != nullptr) bytes = std::max(bytes, product->scratchpad_bytes());
  }
  return bytes;
}

ServedBlock::Runner::Runner(const ServedBlock& block, const kernels::Kernels& kernels, const float* context_x,
                            const float* x, std::byte* scratchpad)
    : block_(block),
      kernels_(kernels),
      context_x_(context_x),
      x_(x),
      scratchpad_(scratchpad),
      z_(static_cast<size_t>(kTileRows * block.ldz_)),
      context_z_(block.context_ != nullptr ? z_.size() : 0),
      inverse_norm_(kTileRows),
      context_squared_norm_(kTileRows),
      gated_(kTileRows * block.spec_.layers * block.spec_.top_k),
      kept_(gated_.size()) {}

void ServedBlock::Runner::RunContext(int rows) {
  if (block_.context_ == nullptr) return;
  block_.context_->Run(kernels_, rows, context_x_, block_.ldx_, {}, context_z_.data(), block_.ldz_, scratchpad_);
  kernels_.squared_norm(rows, block_.split_, context_x_, block_.ldx_, context_squared_norm_.data());
}

const float* ServedBlock::Runner::InverseNorm(int rows, int context_step, const Runner& context) {
  kernels_.squared_norm(rows, static_cast<int>(block_.spec_.input) - block_.split_, x_ + block_.split_, block_.ldx_,
                        inverse_norm_.data());
  for (int r = 0; r < rows; ++r) {
    const float squared =
        inverse_norm_[r] + (block_.context_ == nullptr ? 0 : context.context_squared_norm_[r * context_step]);
    inverse_norm_[r] = 1 / std::max(std::sqrt(squared), static_cast<float>(kMinQueryNorm));
  }
  return inverse_norm_.data();
}

void ServedBlock::Runner::Run(int rows, int context_step, const Runner& context, float* routing_scores) {
  const BlockSpec& block = block_.spec_;
  const kernels::Kernels& k = kernels_;
  const int O = static_cast<int>(block.width), n = static_cast<int>(block.stack()), ldz = block_.ldz_;
  const float* bias = block_.tensors_.bias;
  const auto activation =
      block.activation == v1::Block::RELU ? kernels::Activation::kRelu : kernels::Activation::kIdentity;
  float* z = z_.data();
  // The context's half is added where the product is stored, and without experts the block ends there.
  kernels::ProductStore store;
  if (block_.context_ != nullptr) {
    store.add = context.context_z_.data();
    store.ldadd = context_step * ldz;
  }
  if (n == 0) {
    store.bias = bias;
    store.activation = activation;
  }
  block_.candidate_.Run(k, rows, x_ + block_.split_, block_.ldx_, store, z, ldz, scratchpad_);
  if (n > 0) {
    float* a = z + O;
    const float* r = block.projected_query ? a + n : nullptr;
    const float* norm = block.unit_query ? InverseNorm(rows, context_step, context) : nullptr;
    if (block.top_k > 0) {
      const int kept = static_cast<int>(block.layers * block.top_k);
      k.route_top_k(block_.routing_, rows, a, r, ldz, norm, gated_.data(), kept, kept_.data(), kept, routing_scores, n);
      k.add_experts_top_k(rows, O, kept, gated_.data(), kept, kept_.data(), kept, block_.kept_u_.data(), O, bias,
                          activation, z, ldz);
    } else {
      k.route_dense(block_.routing_, rows, a, r, ldz, norm, a, ldz, routing_scores, n);
      block_.experts_->Run(k, rows, a, ldz, {z, ldz, bias, activation}, z, ldz, scratchpad_);
    }
  }
  if (block.activation == v1::Block::SILU) k.silu(rows, O, z, ldz);
  if (block.activation == v1::Block::DICE) {
    const float* dice = block_.tensors_.dice;
    k.dice(rows, O, dice, dice + O, dice + 2 * O, z, ldz);
  }
}

}  // namespace hilomoe
