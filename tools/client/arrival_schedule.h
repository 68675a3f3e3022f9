// When an open-loop client sends: a Poisson process, whose times do not depend on how the server does.
//
//   gap = -ln(1 - u) / rate, u uniform in [0, 1)
//
// Threads: one at a time.
#ifndef HILOMOE_TOOLS_CLIENT_ARRIVAL_SCHEDULE_H_
#define HILOMOE_TOOLS_CLIENT_ARRIVAL_SCHEDULE_H_

#include <cstdint>
#include <random>

namespace hilomoe {

class ArrivalSchedule {
 public:
  // per_second > 0. The same seed gives the same times.
  ArrivalSchedule(double per_second, uint64_t seed) : mean_gap_ns_(1e9 / per_second), engine_(seed) {}

  // Of the next arrival, in nanoseconds since the start; never less than the one before.
  int64_t NextNs();

 private:
  const double mean_gap_ns_;
  std::mt19937_64 engine_;
  double now_ns_ = 0;
};

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_CLIENT_ARRIVAL_SCHEDULE_H_
