#include "tools/bench/roofline.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "model/stored_matrix.h"
#include "runtime/kernels/kernels.h"
#include "tools/common/statistics.h"

namespace hilomoe::bench {
namespace {

int Place(const std::string& instruction_set) {
  int count = 0, place = 0;
  const kernels::Kernels* const* all = kernels::AllKernels(&count);
  while (place < count && all[place]->name != instruction_set) ++place;
  return place;
}

}  // namespace

double Median(const std::vector<double>& values) { return Quantile(values, 0.5); }

std::string FmaLimit(const std::string& precision) { return absl::StrCat("fma ", precision); }
std::string ReadLimit(const std::string& level) { return absl::StrCat("read ", level); }

Roofline::Roofline(const Machine& machine, const std::vector<Measurement>& measurements) : machine_(machine) {
  for (const Measurement& measurement : measurements) {
    const Case& c = *measurement.benchmark;
    if (c.group != kLimitsGroup) continue;
    const double amount = std::max({c.work.flops, c.work.bytes, c.work.random_reads});
    rates_[{c.name, c.threads}][c.instruction_set] = amount / Median(measurement.seconds);
  }
}

std::optional<double> Roofline::Rate(const std::string& limit, int threads, const std::string& instruction_set) const {
  const auto found = rates_.find({limit, threads});
  if (found == rates_.end()) return std::nullopt;
  std::optional<double> best;
  for (const auto& [name, rate] : found->second) {
    if (Place(name) <= Place(instruction_set)) best = std::max(best.value_or(0), rate);
  }
  return best;
}

std::optional<Bound> Roofline::ReadBound(const Case& c) const {
  const double bytes = c.work.bytes, working_set = c.work.working_set > 0 ? c.work.working_set : bytes;
  const std::optional<double> memory = Rate(ReadLimit("memory"), c.threads);
  if (bytes <= 0 || !memory.has_value()) return std::nullopt;
  // However often it is read afterwards.
  if (c.cache == Cache::kFlushed) return Bound{ReadLimit("memory"), working_set / *memory};
  const double in_turn = std::max(working_set, c.work.in_turn);
  const std::pair<const char*, size_t> caches[] = {
      {"L1", machine_.l1_bytes}, {"L2", machine_.l2_bytes}, {"L3", machine_.l3_bytes}};
  Bound bound;
  double held = 0;  // of what runs read in turn, so far
  for (const auto& [level, size] : caches) {
    const double here = std::max(0.0, std::min(in_turn, static_cast<double>(size)) - held);
    const std::optional<double> rate = Rate(ReadLimit(level), c.threads);
    if (here == 0 || !rate.has_value()) continue;
    bound = {ReadLimit(level), bound.seconds + here / in_turn * bytes / *rate};
    held += here;
  }
  if (held < in_turn) bound = {ReadLimit("memory"), bound.seconds + (1 - held / in_turn) * bytes / *memory};
  return bound;
}

std::optional<Bound> Roofline::Of(const Case& c) const {
  if (c.group == kLimitsGroup) return std::nullopt;
  std::optional<Bound> bound = ReadBound(c);
  const auto add = [&](double amount, const std::string& limit, std::optional<double> rate) {
    if (amount <= 0 || !rate.has_value()) return;
    if (!bound.has_value() || amount / *rate > bound->seconds) bound = Bound{limit, amount / *rate};
  };
  std::string fma = FmaLimit(c.work.precision);
  if (!Rate(fma, c.threads, c.instruction_set).has_value()) fma = FmaLimit(PrecisionName(Precision::kFloat32));
  add(c.work.flops, fma, Rate(fma, c.threads, c.instruction_set));
  add(c.work.random_reads, kRandomReadLimit, Rate(kRandomReadLimit, c.threads));
  return bound;
}

}  // namespace hilomoe::bench
