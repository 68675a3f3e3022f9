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
    const uint64_t in = 2 * D * (O + L * K);                                        // base and A = x V^T
    const uint64_t rest = 2 * L * kept * O + (L > 0 ? L * (L - 1) * kept * K : 0);  // U and the routing chain
    flops.row += in + rest;
    flops.dense_row += 2 * D * O;
    const uint64_t context = i == 0 ? in / D * spec.context_width() : 0;
    flops.request += context;
    flops.candidate += in + rest - context;
  }
  const uint64_t head = 2 * spec.head_width();
  flops.row += head;
  flops.dense_row += head;
  flops.candidate += head;
  return flops;
}

std::string FlopsText(const Flops& flops) {
  const double change = 100.0 * (static_cast<double>(flops.row) / static_cast<double>(flops.dense_row) - 1);
  return absl::StrCat("row ", Grouped(flops.row), " (without experts ", Grouped(flops.dense_row), ", ",
                      absl::StrFormat("%+.1f", change), " %), compute-once: request ", Grouped(flops.request),
                      ", candidate ", Grouped(flops.candidate));
}

}  // namespace hilomoe
