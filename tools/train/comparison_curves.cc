#include "tools/train/comparison_curves.h"

#include <algorithm>
#include <cmath>

#include "tools/train/random.h"

namespace hilomoe {
namespace {

// The control's values at these FLOPs, seed by seed; empty outside its sizes.
std::vector<double> ValuesAt(const std::vector<CurveSize>& curve, double flops) {
  if (flops < curve.front().flops || flops > curve.back().flops) return {};
  size_t right = 1;
  while (curve[right].flops < flops) ++right;
  const CurveSize &a = curve[right - 1], &b = curve[right];
  const double part = std::log(flops / a.flops) / std::log(b.flops / a.flops);
  std::vector<double> values(a.values.size());
  for (size_t s = 0; s < values.size(); ++s) values[s] = a.values[s] + part * (b.values[s] - a.values[s]);
  return values;
}

double MeanOf(const CurveSize& size, const std::vector<size_t>& seeds) {
  double sum = 0;
  for (const size_t s : seeds) sum += size.values[s];
  return sum / static_cast<double>(seeds.size());
}

CurveGap::Saving SavingOf(const CurveSize& judged, const std::vector<CurveSize>& control,
                          const std::vector<size_t>& seeds) {
  using Bound = CurveGap::Saving::Bound;
  const double wanted = MeanOf(judged, seeds);
  const auto saving = [&](double flops, Bound bound) {
    return CurveGap::Saving{.value = 1 - judged.flops / flops, .bound = bound, .interval = {}};
  };
  double left = MeanOf(control.front(), seeds);
  if (wanted <= left) return saving(control.front().flops, wanted == left ? Bound::kExact : Bound::kAtMost);
  for (size_t i = 1; i < control.size(); ++i) {
    const double right = MeanOf(control[i], seeds);
    if (wanted <= right) {
      const double part = (wanted - left) / (right - left), step = std::log(control[i].flops / control[i - 1].flops);
      return saving(control[i - 1].flops * std::exp(part * step), Bound::kExact);
    }
    left = right;
  }
  return saving(control.back().flops, Bound::kAtLeast);
}

}  // namespace

std::vector<CurveGap> CompareCurves(const std::vector<CurveSize>& judged, const std::vector<CurveSize>& control,
                                    uint32_t resamples, uint64_t seed) {
  std::vector<CurveGap> gaps;
  const size_t seeds = control.front().values.size();
  std::vector<size_t> all(seeds);
  for (size_t s = 0; s < seeds; ++s) all[s] = s;
  for (const CurveSize& size : judged) {
    CurveGap& gap = gaps.emplace_back();
    if (const std::vector<double> at = ValuesAt(control, size.flops); !at.empty()) {
      gap.at_equal_flops = PairedDifference(size.values, at);
    }
    gap.at_equal_value = SavingOf(size, control, all);
    if (seeds < 2) continue;
    std::vector<double> savings(resamples);
    for (uint32_t b = 0; b < resamples; ++b) {
      Random random(seed, 0xC0457, b);
      std::vector<size_t> drawn(seeds);
      for (size_t& s : drawn) s = random.Below(seeds);
      savings[b] = SavingOf(size, control, drawn).value;
    }
    gap.at_equal_value.interval = PercentileInterval(savings);
  }
  return gaps;
}

}  // namespace hilomoe
