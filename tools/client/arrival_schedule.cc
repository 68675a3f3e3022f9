#include "tools/client/arrival_schedule.h"

#include <cmath>

namespace hilomoe {

int64_t ArrivalSchedule::NextNs() {
  const double u = static_cast<double>(engine_() >> 11) * 0x1p-53;
  now_ns_ -= std::log1p(-u) * mean_gap_ns_;
  return static_cast<int64_t>(now_ns_);
}

}  // namespace hilomoe
