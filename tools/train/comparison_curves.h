// Quality against cost: sizes of one model as a curve, held against the curve of another.
//
// A curve is piecewise linear in ln(FLOPs) through the means over seeds of its sizes, in ascending order of FLOPs.
// Threads: pure functions.
#ifndef HILOMOE_TOOLS_TRAIN_COMPARISON_CURVES_H_
#define HILOMOE_TOOLS_TRAIN_COMPARISON_CURVES_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "tools/common/statistics.h"

namespace hilomoe {

struct CurveSize {
  double flops = 0;            // of a row, > 0
  std::vector<double> values;  // larger = better; one per seed, the same seeds in the same order for every size
};

// Where a size of the judged curve lies beside the control's.
struct CurveGap {
  // The size's values minus the control curve's at the same FLOPs, with Student's interval over seeds (each seed has a
  // control curve of its own). nullopt outside the control's sizes: nothing is extrapolated.
  std::optional<Difference> at_equal_flops;

  // 1 - FLOPs / F, F the fewest FLOPs at which the control curve reaches the size's mean. A mean below or above the
  // whole curve counts as at its end: the saving is then at most, or at least, this.
  struct Saving {
    enum class Bound { kExact, kAtMost, kAtLeast };
    double value = 0;
    Bound bound = Bound::kExact;
    std::optional<Interval> interval;  // 95 % of resamples of the seeds, drawn with replacement, for both curves alike
  };
  Saving at_equal_value;
};

// One gap per judged size. The control has at least two sizes, of different FLOPs, ascending; at least one seed.
std::vector<CurveGap> CompareCurves(const std::vector<CurveSize>& judged, const std::vector<CurveSize>& control,
                                    uint32_t resamples, uint64_t seed);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_COMPARISON_CURVES_H_
