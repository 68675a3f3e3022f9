#include "server/log.h"

#include <memory>
#include <string>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "google/protobuf/stubs/logging.h"
#include "grpc/support/log.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace hilomoe {
namespace {

spdlog::logger& Logger() {
  // Never destroyed: gRPC's threads may log while the program exits.
  static spdlog::logger* const logger = [] {
    auto* made = new spdlog::logger("hilomoe", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    made->set_pattern("%v");
    made->flush_on(spdlog::level::info);
    return made;
  }();
  return *logger;
}

void Log(spdlog::level::level_enum level, std::string_view message, LogFields fields) {
  nlohmann::ordered_json line;
  line["time"] = absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone());
  const spdlog::string_view_t name = spdlog::level::to_string_view(level);
  line["level"] = std::string(name.data(), name.size());
  line["message"] = std::string(message);
  for (const auto& [key, value] : fields) line[key] = value;
  Logger().log(level, "{}", line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

void LogGrpc(gpr_log_func_args* args) {
  const LogFields fields = {{"source", "grpc"}};
  if (args->severity == GPR_LOG_SEVERITY_ERROR) {
    Log(spdlog::level::err, args->message, fields);
  } else {
    Log(spdlog::level::info, args->message, fields);
  }
}

}  // namespace

void LogInfo(std::string_view message, LogFields fields) { Log(spdlog::level::info, message, fields); }
void LogWarning(std::string_view message, LogFields fields) { Log(spdlog::level::warn, message, fields); }
void LogError(std::string_view message, LogFields fields) { Log(spdlog::level::err, message, fields); }

void CaptureLibraryLogs() {
  gpr_set_log_function(LogGrpc);
  google::protobuf::SetLogHandler(nullptr);
}

}  // namespace hilomoe
