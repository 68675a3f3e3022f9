#include "server/request_log.h"

#include <chrono>
#include <optional>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "grpcpp/support/status.h"
#include "server/log.h"
#include "server/trace_context.h"

namespace hilomoe {
namespace {

// Messages name what a request says, which may be long.
constexpr size_t kMaxErrorBytes = 512;

int64_t NowNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

RequestLog::RequestLog(const Options& options)
    : one_in_(options.one_in),
      error_interval_ns_(options.errors_per_second > 0 ? 1'000'000'000 / options.errors_per_second : 0),
      threads_(static_cast<size_t>(options.serving_threads)) {}

bool RequestLog::Wants(int thread, int code) {
  uint32_t& until_next = threads_[static_cast<size_t>(thread)].until_next;
  if (one_in_ > 0 && until_next-- == 0) {
    until_next = one_in_ - 1;
    return true;
  }
  return code != grpc::StatusCode::OK && code != grpc::StatusCode::CANCELLED && error_interval_ns_ > 0 &&
         TakeErrorTurn();
}

bool RequestLog::TakeErrorTurn() {
  const int64_t now = NowNs();
  int64_t next = next_error_ns_.load(std::memory_order_relaxed);
  return now >= next && next_error_ns_.compare_exchange_strong(next, now + error_interval_ns_);
}

void RequestLog::Write(const Call& call, Method method, const absl::Status& status) {
  RequestLogLine line;
  line.method = method;
  if (call.model != nullptr) {
    line.model = call.model->name();
    line.version = call.model->version();
  }
  line.candidates = call.num_candidates;
  line.status = status;
  line.stage_ns = call.stage_ns;
  line.duration_ns = static_cast<uint64_t>(std::chrono::nanoseconds(Call::Clock::now() - call.arrived()).count());
  line.peer = call.context().peer();
  const auto [first, end] = call.context().client_metadata().equal_range("traceparent");
  if (first != end && std::next(first) == end) line.traceparent.assign(first->second.data(), first->second.size());
  Write(line);
}

void RequestLog::Write(const RequestLogLine& line) {
  nlohmann::ordered_json fields;
  fields["method"] = kMethodNames[static_cast<int>(line.method)];
  if (!line.model.empty()) {
    fields["model"] = line.model;
    fields["version"] = line.version;
  }
  fields["candidates"] = line.candidates;
  fields["code"] = kStatusCodeNames[static_cast<int>(line.status.code())];
  if (const std::string_view error(line.status.message().data(), line.status.message().size()); !error.empty()) {
    fields["error"] = std::string(error.substr(0, kMaxErrorBytes));
    if (error.size() > kMaxErrorBytes) fields["error_bytes"] = error.size();
  }
  for (int i = 0; i < kStages; ++i) {
    const uint64_t ns = line.stage_ns[static_cast<size_t>(i)];
    if (ns > 0) fields[absl::StrCat(kStageNames[i], "_us")] = static_cast<double>(ns) / 1000;
  }
  fields["duration_us"] = static_cast<double>(line.duration_ns) / 1000;
  fields["peer"] = line.peer;
  if (const std::optional<TraceContext> trace = ParseTraceparent(line.traceparent)) {
    fields["trace_id"] = std::string(trace->trace_id);
    fields["span_id"] = std::string(trace->span_id);
    fields["trace_flags"] = std::string(trace->flags);
  }
  LogObject(line.status.ok() ? LogLevel::kInfo : LogLevel::kWarning, "request", fields);
}

}  // namespace hilomoe
