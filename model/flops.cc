#include "model/flops.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace hilomoe {
namespace {

// 1234567 -> "1,234,567"
std::string Grouped(uint64_t value) {
  const std::string digits = std::to_string(value);
  std::string grouped;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) grouped.push_back(',');
    grouped.push_back(digits[i]);
  }
  return grouped;
}

}  // namespace

Flops CountFlops(const ModelSpec& spec) {
  Flops flops;
  for (size_t i = 0; i < spec.blocks().size(); ++i) {
    const BlockSpec& block = spec.blocks()[i];
    const uint64_t D = block.input, O = block.width, L = block.layers, K = block.experts;
    const uint64_t kept = block.top_k > 0 ? block.top_k : K;
    const uint64_t in = 2 * D * block.stacked_rows();  // base, A = x V^T, R = x (V Wq)^T
    const uint64_t rest = 2 * L * kept * O + (L > 0 && block.hierarchical ? L * (L - 1) * kept * K : 0);  // U, routing
    const uint64_t cross = i >= spec.deep_blocks() ? 2 * D : 0;                                           // x0 * y + x
    flops.row += in + rest + cross;
    flops.dense_row += 2 * D * O + cross;
    const uint64_t context = spec.is_first(i) ? in / D * spec.context_width() : 0;
    flops.request += context;
    flops.candidate += in + rest + cross - context;
  }
  uint64_t rest = 2 * spec.head_width();
  for (const AttentionSpec& attention : spec.attention()) {
    // As served, with a full history: projected query, scores and pooling per position, output.
    const uint64_t pooled = attention.heads * attention.history_width;
    const uint64_t positions = spec.features()[attention.history[0]].max_length;
    rest += 2 * pooled * (attention.query_width + 2 * positions + attention.output_width);
  }
  flops.row += rest;
  flops.dense_row += rest;
  flops.candidate += rest;
  return flops;
}

std::string FlopsText(const Flops& flops) {
  const double change = 100.0 * (static_cast<double>(flops.row) / static_cast<double>(flops.dense_row) - 1);
  return absl::StrCat("row ", Grouped(flops.row), " (without experts ", Grouped(flops.dense_row), ", ",
                      absl::StrFormat("%+.1f", change), " %), compute-once: request ", Grouped(flops.request),
                      ", candidate ", Grouped(flops.candidate));
}

}  // namespace hilomoe
