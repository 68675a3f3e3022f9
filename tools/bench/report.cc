#include "tools/bench/report.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"
#include "runtime/kernels/kernels.h"
#include "tools/common/statistics.h"

namespace hilomoe::bench {
namespace {

// Half the width of the middle half of the repetitions, in percent of the median.
double SpreadPercent(const std::vector<double>& seconds) {
  return 50 * (Quantile(seconds, 0.75) - Quantile(seconds, 0.25)) / Median(seconds);
}

std::string TimeText(double seconds) {
  if (seconds < 1e-6) return absl::StrFormat("%.1f ns", seconds * 1e9);
  if (seconds < 1e-3) return absl::StrFormat("%.2f us", seconds * 1e6);
  if (seconds < 1) return absl::StrFormat("%.2f ms", seconds * 1e3);
  return absl::StrFormat("%.2f s", seconds);
}

std::string RateText(double amount, double seconds) {
  return amount > 0 ? absl::StrFormat("%.2f", amount / seconds / 1e9) : "-";
}

double BytesOf(const Work& work) { return work.bytes > 0 ? work.bytes : 64 * work.random_reads; }

std::string Row(const std::vector<std::string>& cells) {
  constexpr int kNameWidth = 68, kSetWidth = 15;
  std::string row = absl::StrFormat("%-*s %-*s", kNameWidth, cells[0], kSetWidth, cells[1]);
  for (size_t i = 2; i + 1 < cells.size(); ++i) absl::StrAppendFormat(&row, "%11s", cells[i]);
  return absl::StrCat(row, "  ", cells.back(), "\n");
}

std::string NameText(const Case& c) {
  return absl::StrCat(
      c.name, c.cache == Cache::kFlushed ? ", flushed" : "",
      c.threads > 1 ? absl::StrCat(", ", c.threads, c.together ? " threads together" : " threads") : "");
}

std::vector<Comparison> Compare(const std::vector<Measurement>& measurements) {
  std::map<std::string, const Measurement*> by_name;
  for (const Measurement& measurement : measurements) by_name[FullName(*measurement.benchmark)] = &measurement;
  std::vector<Comparison> comparisons;
  for (const Measurement& measurement : measurements) {
    const Case& c = *measurement.benchmark;
    for (const std::string& name : c.compared_with) {
      const auto found = by_name.find(name);
      if (found == by_name.end()) continue;
      const Measurement& with = *found->second;
      std::vector<double> ratios;
      for (size_t i = 0; i < std::min(with.seconds.size(), measurement.seconds.size()); ++i) {
        ratios.push_back(with.seconds[i] / measurement.seconds[i]);
      }
      Comparison comparison{&c, with.benchmark, Median(ratios), Quantile(ratios, 0.25), Quantile(ratios, 0.75), {}};
      const double flops = with.benchmark->work.flops;
      if (flops > 0 && c.work.flops > 0 && c.threads == with.benchmark->threads) {
        comparison.by_flops = flops / c.work.flops;
      }
      comparisons.push_back(comparison);
    }
  }
  return comparisons;
}

}  // namespace

Report MakeReport(const Machine& machine, int repetitions, const MemoryUse& memory,
                  std::vector<Measurement> measurements) {
  Report report;
  report.machine = machine;
  report.kernels = kernels::SelectKernels().name;
  report.repetitions = repetitions;
  report.memory = memory;
  report.measurements = std::move(measurements);
  const Roofline roofline(report.machine, report.measurements);
  for (const Measurement& measurement : report.measurements) {
    report.bounds.push_back(roofline.Of(*measurement.benchmark));
  }
  report.comparisons = Compare(report.measurements);
  return report;
}

std::string ReportText(const Report& report) {
  const Machine& machine = report.machine;
  std::string text =
      absl::StrFormat("%s, %d usable, L1 %d KiB, L2 %d KiB, L3 %d MiB; kernels %s; %d repetitions, interleaved\n",
                      machine.cpu, machine.cpus, machine.l1_bytes >> 10, machine.l2_bytes >> 10, machine.l3_bytes >> 20,
                      report.kernels, report.repetitions);
  absl::StrAppendFormat(&text, "bench model in memory: file %.1f MiB, a thread's workspace %.2f MiB\n",
                        report.memory.file_bytes / (1 << 20), report.memory.workspace_bytes / (1 << 20));
  std::string group;
  for (size_t i = 0; i < report.measurements.size(); ++i) {
    const auto& [c, seconds] = report.measurements[i];
    if (c->group != group) {
      group = c->group;
      text += "\n";
      text += Row({group, "instruction set", "median", "+-", "GFLOP/s", "GB/s", "of limit", "limit"});
    }
    const double median = Median(seconds);
    const std::optional<Bound>& bound = report.bounds[i];
    text += Row({NameText(*c), c->instruction_set, TimeText(median), absl::StrFormat("%.1f %%", SpreadPercent(seconds)),
                 RateText(c->work.flops, median), RateText(BytesOf(c->work), median),
                 bound.has_value() ? absl::StrFormat("%.0f %%", 100 * bound->seconds / median) : "",
                 bound.has_value() ? bound->limit : ""});
    if (group == kLimitsGroup && c->work.random_reads > 0) {
      text.insert(text.size() - 1, absl::StrFormat("%.1f ns a read", median / c->work.random_reads * 1e9));
    }
  }
  if (report.comparisons.empty()) return text;
  text += absl::StrFormat("\n%-90s %12s  %-14s %9s\n", "comparisons: each with the line below it", "times as fast",
                          "[quartiles]", "by FLOPs");
  for (const Comparison& comparison : report.comparisons) {
    absl::StrAppendFormat(&text, "%-90s %12.2f  [%.2f, %.2f] %10s\n    %s\n", FullName(*comparison.benchmark),
                          comparison.times_as_fast, comparison.low, comparison.high,
                          comparison.by_flops.has_value() ? absl::StrFormat("%.2f", *comparison.by_flops) : "",
                          FullName(*comparison.with));
  }
  return text;
}

std::string ReportJson(const Report& report) {
  using nlohmann::json;
  const Machine& machine = report.machine;
  json out;
  out["machine"] = {{"cpu", machine.cpu},           {"cpus", machine.cpus},         {"l1_bytes", machine.l1_bytes},
                    {"l2_bytes", machine.l2_bytes}, {"l3_bytes", machine.l3_bytes}, {"kernels", report.kernels}};
  out["memory"] = {{"file_bytes", report.memory.file_bytes}, {"workspace_bytes", report.memory.workspace_bytes}};
  out["repetitions"] = report.repetitions;
  out["benchmarks"] = json::array();
  for (size_t i = 0; i < report.measurements.size(); ++i) {
    const auto& [c, seconds] = report.measurements[i];
    json row = {{"name", FullName(*c)},
                {"group", c->group},
                {"instruction_set", c->instruction_set},
                {"threads", c->threads},
                {"together", c->together},
                {"flushed", c->cache == Cache::kFlushed},
                {"seconds", seconds},
                {"median", Median(seconds)},
                {"low", Quantile(seconds, 0.25)},
                {"high", Quantile(seconds, 0.75)},
                {"flops", c->work.flops},
                {"bytes", BytesOf(c->work)},
                {"random_reads", c->work.random_reads}};
    if (const std::optional<Bound>& bound = report.bounds[i]; bound.has_value()) {
      row["limit"] = bound->limit;
      row["fraction_of_limit"] = bound->seconds / Median(seconds);
    }
    out["benchmarks"].push_back(std::move(row));
  }
  out["comparisons"] = json::array();
  for (const Comparison& comparison : report.comparisons) {
    json row = {{"name", FullName(*comparison.benchmark)},
                {"with", FullName(*comparison.with)},
                {"times_as_fast", comparison.times_as_fast},
                {"low", comparison.low},
                {"high", comparison.high}};
    if (comparison.by_flops.has_value()) row["by_flops"] = *comparison.by_flops;
    out["comparisons"].push_back(std::move(row));
  }
  return out.dump(1) + "\n";
}

}  // namespace hilomoe::bench
