#include "server/score_histogram.h"

#include <bit>

namespace hilomoe {
namespace {

constexpr uint32_t kInfinity = 0x7f800000;

// As unsigned integers, floats that are not negative compare as they are, and NaNs are above all of them. Comparisons
// of integers the compiler turns into vectors, those of floats not.
uint32_t AtMost(absl::Span<const float> scores, float bound) {
  const auto most = std::bit_cast<uint32_t>(bound);
  uint32_t n = 0;
  for (const float score : scores) n += std::bit_cast<uint32_t>(score) <= most ? 1 : 0;
  return n;
}

}  // namespace

void ScoreHistogram::Record(absl::Span<const float> scores) {
  for (size_t i = 0; i < kBounds.size(); ++i) at_most_[i].Add(AtMost(scores, static_cast<float>(kBounds[i])));
  count_.Add(scores.size());
  std::array<double, 4> sums{};  // four chains of additions, so that they overlap
  for (size_t i = 0; i < scores.size(); ++i) {
    sums[i % sums.size()] += std::bit_cast<uint32_t>(scores[i]) < kInfinity ? scores[i] : 0;
  }
  sum_.Add(sums[0] + sums[1] + sums[2] + sums[3]);
}

}  // namespace hilomoe
