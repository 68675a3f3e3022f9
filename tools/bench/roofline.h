// How fast a case could be at best on this machine, from the limits measured in the same run.
#ifndef HILOMOE_TOOLS_BENCH_ROOFLINE_H_
#define HILOMOE_TOOLS_BENCH_ROOFLINE_H_

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tools/bench/benchmark_case.h"
#include "tools/bench/machine/machine.h"
#include "tools/bench/run_cases.h"

namespace hilomoe::bench {

inline constexpr char kLimitsGroup[] = "limits";
// Names of the limits' cases. Each has one kind of work: its rate is the limit.
std::string FmaLimit(const std::string& precision);  // "fma float32"
std::string ReadLimit(const std::string& level);     // "read L2"
inline constexpr char kRandomReadLimit[] = "random reads, many in flight";

struct Bound {
  std::string limit;   // "fma float32"
  double seconds = 0;  // no run can take less
};

class Roofline {
 public:
  // Takes the medians of the measurements of the group "limits".
  Roofline(const Machine& machine, const std::vector<Measurement>& measurements);

  // The largest of the times that flops, bytes and random reads of the case's work take at the limit's rate with as
  // many threads. Multiply-adds: at the best rate of the case's instruction set and those that it includes; where none
  // of them has the precision, of float32, which all but portable int8 compute with then. Bytes: of a working set that
  // is larger than a cache, what fits comes from there and only the rest from further away; flushed ones come from
  // memory. None of a limit itself, or where the limits were not measured.
  std::optional<Bound> Of(const Case& c) const;

 private:
  std::optional<Bound> ReadBound(const Case& c) const;
  // The best one of `instruction_set` and those before it in kernels::AllKernels; of all for a name not there.
  std::optional<double> Rate(const std::string& limit, int threads, const std::string& instruction_set = "") const;

  const Machine& machine_;
  // Per limit and threads the rates a second by instruction set.
  std::map<std::pair<std::string, int>, std::map<std::string, double>> rates_;
};

double Median(const std::vector<double>& values);

}  // namespace hilomoe::bench

#endif  // HILOMOE_TOOLS_BENCH_ROOFLINE_H_
