#include "runtime/routing_statistics.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "runtime/packed_product.h"

namespace hilomoe {
namespace {

constexpr uint32_t kInfinity = 0x7f800000;

// s log2(s) for normal s, 0 for 0. Absolute error below 6e-5 s: what interpolating (log2(1 + t) - t) / (t (1 - t)) at
// the Chebyshev nodes of [0, 1] leaves.
float TimesLog2(float s) {
  const auto bits = std::bit_cast<uint32_t>(s);
  const auto exponent = static_cast<float>(static_cast<int32_t>(bits >> 23) - 127);
  const float t = std::bit_cast<float>((bits & 0x007fffff) | 0x3f800000) - 1;
  const float q = 0.44241858F + t * (-0.26957801F + t * (0.15053320F + t * -0.04487396F));
  return s * (exponent + t + t * (1 - t) * q);
}

// Without branches, comparisons of floats among them, so that the compiler makes vectors of it.
void AddRow(int experts, const float* __restrict scores, float* __restrict mass, float* __restrict entropy) {
  for (int i = 0; i < experts; ++i) {
    const auto bits = std::bit_cast<uint32_t>(scores[i]);
    const float s = std::bit_cast<float>(bits < kInfinity ? bits : 0);  // as unsigned, negative numbers are above, too
    mass[i] += s;
    entropy[i] -= TimesLog2(s);
  }
}

}  // namespace

RoutingStatistics::RoutingStatistics(const ModelSpec& spec, uint32_t one_in) : one_in_(one_in) {
  for (const BlockSpec& block : spec.blocks()) {
    blocks_.push_back({block.layers, block.experts, layers_, experts_});
    layers_ += block.layers;
    experts_ += block.stack();
    largest_stack_ = std::max(largest_stack_, block.stack());
  }
}

RoutingStatistics::Worker* RoutingStatistics::AddWorker() {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto number = static_cast<uint32_t>(workers_.size());
  return workers_.emplace_back(std::unique_ptr<Worker>(new Worker(*this, number))).get();
}

RoutingStatistics::Totals RoutingStatistics::Sum() const {
  Totals totals;
  for (size_t b = 0; b < blocks_.size(); ++b) {
    for (size_t l = 0; l < blocks_[b].layers; ++l) {
      totals.layers.push_back({b, l, std::vector<double>(blocks_[b].experts), 0});
    }
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& worker : workers_) {
    totals.rows += worker->rows_.load(std::memory_order_relaxed);
    size_t expert = 0;
    for (size_t l = 0; l < totals.layers.size(); ++l) {
      for (double& mass : totals.layers[l].mass) mass += worker->mass_[expert++].load(std::memory_order_relaxed);
      totals.layers[l].entropy += worker->entropy_[l].load(std::memory_order_relaxed);
    }
  }
  return totals;
}

RoutingStatistics::Worker::Worker(const RoutingStatistics& statistics, uint32_t number)
    : statistics_(statistics),
      random_(number),
      scores_(kTileRows * statistics.largest_stack_),
      tile_mass_(statistics.largest_stack_),
      tile_entropy_(statistics.largest_stack_),
      mass_(statistics.experts_),
      entropy_(statistics.layers_) {
  if (statistics.one_in_ > 0 && statistics.experts_ > 0) Draw();
}

// Evenly from 1 to 2 * one_in - 1, by the high bits of a linear congruential generator (Knuth's MMIX).
bool RoutingStatistics::Worker::Draw() {
  random_ = random_ * 6364136223846793005U + 1442695040888963407U;
  countdown_ = 1 + static_cast<uint32_t>(((random_ >> 33) * (2 * uint64_t{statistics_.one_in_} - 1)) >> 31);
  return true;
}

void RoutingStatistics::Worker::Add(size_t block, int rows) {
  const Block& shape = statistics_.blocks_[block];
  const size_t stack = shape.layers * shape.experts;
  std::fill_n(tile_mass_.begin(), stack, 0.0F);
  std::fill_n(tile_entropy_.begin(), stack, 0.0F);
  for (size_t r = 0; r < static_cast<size_t>(rows); ++r) {
    AddRow(static_cast<int>(stack), &scores_[r * stack], tile_mass_.data(), tile_entropy_.data());
  }
  const double log2_most = std::log2(static_cast<double>(shape.experts));
  for (size_t l = 0; l < shape.layers; ++l) {
    double sum = 0;
    for (size_t i = l * shape.experts; i < (l + 1) * shape.experts; ++i) {
      Increase(&mass_[shape.first_expert + i], tile_mass_[i]);
      sum += tile_entropy_[i];
    }
    // A lone expert is chosen as evenly as can be.
    Increase(&entropy_[shape.first_layer + l], log2_most > 0 ? sum / log2_most : rows);
  }
}

}  // namespace hilomoe
