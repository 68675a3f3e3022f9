#include "runtime/served_block.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "model/reference.h"
#include "model/status_macros.h"

namespace hilomoe {

ServedBlock::ServedBlock(const BlockSpec& block, const ServingBlockTensors<const float>& tensors, size_t split,
                         size_t ldx)
    : spec_(block),
      tensors_(tensors),
      split_(static_cast<int>(split)),
      ldx_(static_cast<int>(ldx)),
      stacked_(static_cast<int>(block.stacked_rows())) {
  if (block.layers == 0) return;
  routing_ = {static_cast<int>(block.layers),
              static_cast<int>(block.experts),
              static_cast<int>(block.top_k),
              tensors.alpha[0],
              tensors.tau,
              tensors.c,
              tensors.gram};
}

absl::StatusOr<std::unique_ptr<ServedBlock>> ServedBlock::Create(const BlockSpec& block,
                                                                 const ServingBlockTensors<const float>& tensors,
                                                                 size_t split, size_t ldx) {
  auto served = std::unique_ptr<ServedBlock>(new ServedBlock(block, tensors, split, ldx));
  const int n = served->stacked_, input = static_cast<int>(block.input);
  if (split > 0) {
    HILOMOE_ASSIGN_OR_RETURN(served->context_,
                             DenseProduct::Create(tensors.stacked_weight, n, served->split_, input, served->ldx_, n));
  }
  if (input > served->split_) {
    HILOMOE_ASSIGN_OR_RETURN(served->candidate_, DenseProduct::Create(tensors.stacked_weight + split, n,
                                                                      input - served->split_, input, served->ldx_, n));
  }
  return served;
}

size_t ServedBlock::scratchpad_bytes() const {
  size_t bytes = 0;
  for (const DenseProduct* product : {context_.get(), candidate_.get()}) {
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
      z_(static_cast<size_t>(kTileRows * block.stacked_)),
      inverse_norm_(kTileRows),
      context_squared_norm_(kTileRows),
      gated_(kTileRows * block.spec_.layers * block.spec_.top_k),
      kept_(gated_.size()) {
  if (block.context_ != nullptr) {
    context_z_.resize(z_.size());
    context_.emplace_back(*block.context_, context_x, context_z_.data(), scratchpad);
  }
  if (block.candidate_ != nullptr) {
    candidate_.emplace_back(*block.candidate_, x + block.split_, z_.data(), scratchpad);
  }
}

void ServedBlock::Runner::RunContext(int rows) {
  if (context_.empty()) return;
  context_[0].Run(rows);
  kernels_.squared_norm(rows, block_.split_, context_x_, block_.ldx_, context_squared_norm_.data());
}

void ServedBlock::Runner::AddContext(int rows, int context_step) {
  const size_t stacked = static_cast<size_t>(block_.stacked_);
  for (int r = 0; r < rows; ++r) {
    const float* context = &context_z_[static_cast<size_t>(r * context_step) * stacked];
    float* z = &z_[static_cast<size_t>(r) * stacked];
    if (candidate_.empty()) {
      std::memcpy(z, context, stacked * sizeof(float));
    } else {
      kernels_.add(block_.stacked_, context, z);
    }
  }
}

const float* ServedBlock::Runner::InverseNorm(int rows, int context_step) {
  kernels_.squared_norm(rows, static_cast<int>(block_.spec_.input) - block_.split_, x_ + block_.split_, block_.ldx_,
                        inverse_norm_.data());
  for (int r = 0; r < rows; ++r) {
    const float squared = inverse_norm_[r] + (context_.empty() ? 0 : context_squared_norm_[r * context_step]);
    inverse_norm_[r] = 1 / std::max(std::sqrt(squared), static_cast<float>(kMinQueryNorm));
  }
  return inverse_norm_.data();
}

void ServedBlock::Runner::Run(int rows, int context_step) {
  const BlockSpec& block = block_.spec_;
  const kernels::Kernels& k = kernels_;
  const int O = static_cast<int>(block.width), n = static_cast<int>(block.stack()), ldz = block_.stacked_;
  if (!candidate_.empty()) candidate_[0].Run(rows);
  if (!context_.empty()) AddContext(rows, context_step);
  float* z = z_.data();
  float* a = z + O;
  const float* r = block.projected_query ? a + n : nullptr;
  const float* norm = n > 0 && block.unit_query ? InverseNorm(rows, context_step) : nullptr;
  const float* bias = block_.tensors_.bias;
  const auto activation =
      block.activation == v1::Block::RELU ? kernels::Activation::kRelu : kernels::Activation::kIdentity;
  if (block.top_k > 0) {
    const int kept = static_cast<int>(block.layers * block.top_k);
    k.route_top_k(block_.routing_, rows, a, r, ldz, norm, gated_.data(), kept, kept_.data(), kept, nullptr, 0);
    k.add_experts_top_k(rows, O, kept, gated_.data(), kept, kept_.data(), kept, block_.tensors_.u, O, bias, activation,
                        z, ldz);
  } else {
    if (n > 0) k.route_dense(block_.routing_, rows, a, r, ldz, norm, a, ldz, nullptr, 0);
    k.add_experts_dense(rows, O, n, a, ldz, block_.tensors_.u, O, bias, activation, z, ldz);
  }
  if (block.activation == v1::Block::SILU) k.silu(rows, O, z, ldz);
  if (block.activation == v1::Block::DICE) {
    const float* dice = block_.tensors_.dice;
    k.dice(rows, O, dice, dice + O, dice + 2 * O, z, ldz);
  }
}

}  // namespace hilomoe
