#include "tools/client/load_report.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "model/file_io.h"
#include "model/status_macros.h"
#include "nlohmann/json.hpp"

namespace hilomoe {
namespace {

constexpr std::pair<const char*, double> kPercentiles[] = {
    {"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}, {"max", 1}};

double Milliseconds(const LatencyHistogram& latency, double fraction) {
  return (fraction < 1 ? latency.PercentileNs(fraction) : static_cast<double>(latency.max_ns())) / 1e6;
}

bool IsRefused(const LoadRecord& record, absl::Duration deadline) {
  return record.code == grpc::RESOURCE_EXHAUSTED ||
         (record.code == grpc::DEADLINE_EXCEEDED && absl::Nanoseconds(record.latency_ns) < deadline);
}

template <typename Counters>
void Count(const LoadRecord& record, absl::Duration deadline, Counters* counters) {
  const auto latency = static_cast<uint64_t>(std::max<int64_t>(record.latency_ns, 0));
  ++counters->sent;
  if (record.code == grpc::OK) {
    counters->good += absl::Nanoseconds(record.latency_ns) <= deadline;
    counters->latency.Add(latency);
  } else if (IsRefused(record, deadline)) {
    ++counters->refused;
  } else {
    ++counters->failed;
  }
}

void CountAll(const LoadRecord& record, absl::Duration deadline, uint32_t candidates, LoadReport::Counts* counts) {
  Count(record, deadline, counts);
  ++counts->by_code[absl::StatusCodeToString(static_cast<absl::StatusCode>(record.code))];
  if (record.code == grpc::OK) counts->candidates += candidates;
  if (IsRefused(record, deadline)) {
    counts->refusal_latency.Add(static_cast<uint64_t>(std::max<int64_t>(record.latency_ns, 0)));
  }
}

struct Window {
  int64_t begin_ns, end_ns;
};

// One for each version that was not the first to answer, by time.
std::vector<Window> FindSwaps(const LoadRun& run, const std::deque<LoadRecord>& records, const SwapWindows& swaps) {
  std::map<uint64_t, int64_t> first_answer;
  for (const LoadRecord& record : records) {
    if (record.code == grpc::OK) first_answer.emplace(record.version, record.start_ns + record.latency_ns);
  }
  std::vector<int64_t> times;
  for (const auto& [version, ns] : first_answer) times.push_back(ns);
  std::sort(times.begin(), times.end());
  std::vector<Window> windows;
  for (size_t i = 1; i < times.size(); ++i) {
    Window window = {times[i] - absl::ToInt64Nanoseconds(swaps.before),
                     times[i] + absl::ToInt64Nanoseconds(swaps.after)};
    for (const absl::Time published : swaps.published) {
      const int64_t ns = absl::ToInt64Nanoseconds(published - run.start);
      if (ns > times[i - 1] && ns < times[i]) {
        window.begin_ns = ns;
        break;
      }
    }
    if (times[i] >= run.begin_ns && times[i] < run.end_ns) windows.push_back(window);
  }
  return windows;
}

nlohmann::json LatencyJson(const LatencyHistogram& latency) {
  nlohmann::json json = {{"count", latency.count()}};
  for (const auto& [name, fraction] : kPercentiles) json[name] = Milliseconds(latency, fraction);
  return json;
}

nlohmann::json CountsJson(const LoadReport::Counts& counts, double seconds) {
  const double per_second = 1 / std::max(seconds, 1e-9);
  return {{"seconds", seconds},
          {"sent", counts.sent},
          {"good", counts.good},
          {"refused", counts.refused},
          {"failed", counts.failed},
          {"by_code", counts.by_code},
          {"sent_per_second", static_cast<double>(counts.sent) * per_second},
          {"ok_per_second", static_cast<double>(counts.latency.count()) * per_second},
          {"good_per_second", static_cast<double>(counts.good) * per_second},
          {"candidates_per_second", static_cast<double>(counts.candidates) * per_second},
          {"latency_ms", LatencyJson(counts.latency)},
          {"refusal_latency_ms", LatencyJson(counts.refusal_latency)}};
}

void AppendLatency(std::string_view name, const LatencyHistogram& latency, std::string* text) {
  if (latency.count() == 0) return;
  absl::StrAppendFormat(text, "%-16s ms", absl::string_view(name.data(), name.size()));
  for (const auto& [percentile, fraction] : kPercentiles) {
    absl::StrAppendFormat(text, "  %s %.3f", percentile, Milliseconds(latency, fraction));
  }
  absl::StrAppendFormat(text, "  (%d)\n", latency.count());
}

}  // namespace

absl::StatusOr<std::vector<absl::Time>> ReadTimes(const std::string& path) {
  HILOMOE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  std::vector<absl::Time> times;
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipWhitespace())) {
    const std::vector<absl::string_view> words = absl::StrSplit(line, ' ', absl::SkipWhitespace());
    double seconds = 0;
    if (!absl::SimpleAtod(words[0], &seconds)) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": '", line, "' does not begin with a time in seconds"));
    }
    times.push_back(absl::UnixEpoch() + absl::Seconds(seconds));
  }
  return times;
}

LoadReport MakeLoadReport(const LoadRun& run, const LoadRecorder& recorder, const LoadOptions& options,
                          absl::Span<const v1::ScoreRequest> requests, const LoadReportOptions& report_options) {
  LoadReport report;
  report.run = run;
  report.first_failure = recorder.first_failure();
  report.first_wrong = recorder.first_wrong();
  report.seconds = static_cast<double>(run.end_ns - run.begin_ns) / 1e9;
  report.timeline_step = report_options.timeline_step;
  const int64_t step_ns = absl::ToInt64Nanoseconds(report_options.timeline_step);
  if (step_ns > 0) report.timeline.resize(static_cast<size_t>((run.end_ns - run.begin_ns + step_ns - 1) / step_ns));
  const std::vector<Window> windows = FindSwaps(run, recorder.records(), report_options.swaps);
  report.swaps = static_cast<int64_t>(windows.size());
  int64_t covered = run.begin_ns;  // windows may overlap
  for (const Window& window : windows) {
    const int64_t begin = std::max(window.begin_ns, covered), end = std::min(window.end_ns, run.end_ns);
    if (end > begin) report.seconds_in_swaps += static_cast<double>(end - begin) / 1e9;
    covered = std::max(covered, end);
  }

  for (const LoadRecord& record : recorder.records()) {
    report.right += record.verdict == Verdict::kRight;
    report.wrong += record.verdict == Verdict::kWrong;
    report.unknown_version += record.verdict == Verdict::kUnknownVersion;
    report.unreadable += record.verdict == Verdict::kUnreadable;
    if (record.start_ns < run.begin_ns || record.start_ns >= run.end_ns) continue;
    const uint32_t candidates = requests[record.request].num_candidates();
    CountAll(record, options.deadline, candidates, &report.all);
    const bool swapping = std::any_of(windows.begin(), windows.end(), [&](const Window& window) {
      return record.start_ns >= window.begin_ns && record.start_ns < window.end_ns;
    });
    CountAll(record, options.deadline, candidates, swapping ? &report.in_swaps : &report.steady);
    if (step_ns > 0) {
      Count(record, options.deadline,
            &report.timeline[static_cast<size_t>((record.start_ns - run.begin_ns) / step_ns)]);
    }
    report.pushbacks += record.pushback;
    if (record.code == grpc::OK) ++report.by_version[record.version];
    if (record.predictor_ns > 0) report.predictor.Add(record.predictor_ns);
  }
  return report;
}

std::string LoadReport::ToText() const {
  const double per_second = 1 / std::max(seconds, 1e-9);
  std::string text =
      absl::StrFormat("%.1f s: %d sent, %.1f/s; %.1f/s good, %.0f candidates/s; %d refused, %d failed\n", seconds,
                      all.sent, static_cast<double>(all.sent) * per_second, static_cast<double>(all.good) * per_second,
                      static_cast<double>(all.candidates) * per_second, all.refused, all.failed);
  absl::StrAppend(&text, absl::StrJoin(all.by_code, ", ", absl::PairFormatter(" ")), "; versions ",
                  absl::StrJoin(by_version, ", ", absl::PairFormatter(": ")), "\n");
  AppendLatency("latency", all.latency, &text);
  AppendLatency("refusals", all.refusal_latency, &text);
  AppendLatency("predictor", predictor, &text);
  if (swaps > 0) {
    absl::StrAppendFormat(&text, "%d swaps, %.1f s\n", swaps, seconds_in_swaps);
    AppendLatency("latency in swaps", in_swaps.latency, &text);
    AppendLatency("latency else", steady.latency, &text);
  }
  absl::StrAppendFormat(&text, "client: %.0f %% of a core, %d under way at most",
                        100 * run.cpu_seconds / (static_cast<double>(run.end_ns) / 1e9), run.most_in_flight);
  if (run.send_delay.count() > 0) {
    absl::StrAppendFormat(&text, ", sent late by p50 %.3f ms, p99 %.3f ms", Milliseconds(run.send_delay, 0.5),
                          Milliseconds(run.send_delay, 0.99));
  }
  if (run.held_back > 0) {
    absl::StrAppendFormat(&text, "; %d HELD BACK because too many were under way (--open_loop_max_in_flight)",
                          run.held_back);
  }
  text += '\n';
  if (right + wrong + unknown_version > 0 || !scores_are_right()) {
    absl::StrAppendFormat(&text, "scores: %d right, %d wrong, %d of unknown versions, %d unreadable\n", right, wrong,
                          unknown_version, unreadable);
  }
  if (!first_wrong.empty()) absl::StrAppend(&text, "first wrong: ", first_wrong, "\n");
  if (!first_failure.empty()) absl::StrAppend(&text, "first failure: ", first_failure, "\n");
  return text;
}

std::string LoadReport::ToJson(const std::vector<std::pair<std::string, std::string>>& setup) const {
  nlohmann::json versions = nlohmann::json::object();
  for (const auto& [version, count] : by_version) versions[absl::StrCat(version)] = count;
  nlohmann::json json = CountsJson(all, seconds);
  json["setup"] = nlohmann::json::object();
  for (const auto& [name, value] : setup) json["setup"][name] = value;
  json["by_version"] = versions;
  json["pushbacks"] = pushbacks;
  json["predictor_ms"] = LatencyJson(predictor);
  json["scores"] = {
      {"right", right}, {"wrong", wrong}, {"unknown_version", unknown_version}, {"unreadable", unreadable}};
  json["first_failure"] = first_failure;
  json["first_wrong"] = first_wrong;
  json["swaps"] = {{"count", swaps},
                   {"within", CountsJson(in_swaps, seconds_in_swaps)},
                   {"steady", CountsJson(steady, seconds - seconds_in_swaps)}};
  json["client"] = {{"cpu_seconds", run.cpu_seconds},
                    {"run_seconds", static_cast<double>(run.end_ns) / 1e9},
                    {"most_in_flight", run.most_in_flight},
                    {"held_back", run.held_back},
                    {"send_delay_ms", LatencyJson(run.send_delay)}};
  json["begin"] = absl::ToDoubleSeconds(run.start - absl::UnixEpoch()) + static_cast<double>(run.begin_ns) / 1e9;
  if (!timeline.empty()) {
    json["timeline_step_seconds"] = absl::ToDoubleSeconds(timeline_step);
    nlohmann::json& lines = json["timeline"] = nlohmann::json::array();
    for (const Step& step : timeline) {
      lines.push_back({{"sent", step.sent},
                       {"good", step.good},
                       {"refused", step.refused},
                       {"failed", step.failed},
                       {"latency_ms", LatencyJson(step.latency)}});
    }
  }
  // Messages come from outside: what is not UTF-8 is replaced, not thrown at.
  return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace hilomoe
