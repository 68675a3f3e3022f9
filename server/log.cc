#include "server/log.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <memory>
#include <string>
#include <thread>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "google/protobuf/stubs/logging.h"
#include "grpc/support/log.h"
#include "spdlog/async_logger.h"
#include "spdlog/details/null_mutex.h"
#include "spdlog/details/thread_pool.h"
#include "spdlog/sinks/base_sink.h"

namespace hilomoe {
namespace {

using Json = nlohmann::ordered_json;

// Writes lines to stderr and tells when that fails, which spdlog's own sink does not. On the logger's thread alone.
class StderrSink final : public spdlog::sinks::base_sink<spdlog::details::null_mutex> {
 public:
  uint64_t written() const { return written_.load(); }
  uint64_t failed() const { return failed_.load(); }

 private:
  void sink_it_(const spdlog::details::log_msg& message) override {
    std::string line(torn_ ? "\n" : "");
    line.append(message.payload.data(), message.payload.size()) += '\n';
    const size_t done = Write(line);
    (done == line.size() ? written_ : failed_).fetch_add(1);
    torn_ = done == 0 ? torn_ : done < line.size();
  }
  void flush_() override {}

  static size_t Write(const std::string& line) {
    size_t done = 0;
    while (done < line.size()) {
      const ssize_t n = write(STDERR_FILENO, line.data() + done, line.size() - done);
      if (n >= 0) {
        done += static_cast<size_t>(n);
      } else if (errno == EAGAIN) {
        pollfd writable = {STDERR_FILENO, POLLOUT, 0};
        poll(&writable, 1, -1);
      } else if (errno != EINTR) {
        break;
      }
    }
    return done;
  }

  std::atomic<uint64_t> written_{0}, failed_{0};
  bool torn_ = false;  // the last line was cut off
};

struct Log {
  Log() {
    // Whoever reads the pipe may go away; that must not end the server.
    const auto block_broken_pipe = [] {
      sigset_t signals;
      sigemptyset(&signals);
      sigaddset(&signals, SIGPIPE);
      pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    };
    pool = std::make_shared<spdlog::details::thread_pool>(kQueuedLogLines, 1, block_broken_pipe);
    logger =
        std::make_shared<spdlog::async_logger>("hilomoe", sink, pool, spdlog::async_overflow_policy::overrun_oldest);
  }

  const std::shared_ptr<StderrSink> sink = std::make_shared<StderrSink>();
  std::shared_ptr<spdlog::details::thread_pool> pool;
  std::shared_ptr<spdlog::async_logger> logger;
  std::atomic<uint64_t> given{0};
};

Log& TheLog() {
  // Never destroyed: gRPC's threads may log while the program exits.
  static Log* const log = new Log;
  return *log;
}

spdlog::level::level_enum SpdlogLevel(LogLevel level) {
  return level == LogLevel::kInfo      ? spdlog::level::info
         : level == LogLevel::kWarning ? spdlog::level::warn
                                       : spdlog::level::err;
}

Json StartLine(LogLevel level, std::string_view message) {
  Json line;
  line["time"] = absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone());
  const spdlog::string_view_t name = spdlog::level::to_string_view(SpdlogLevel(level));
  line["level"] = std::string(name.data(), name.size());
  line["message"] = std::string(message);
  return line;
}

void Write(LogLevel level, const Json& line) {
  Log& log = TheLog();
  log.given.fetch_add(1);
  const std::string text = line.dump(-1, ' ', false, Json::error_handler_t::replace);
  log.logger->log(SpdlogLevel(level), spdlog::string_view_t(text.data(), text.size()));
}

void WriteFields(LogLevel level, std::string_view message, LogFields fields) {
  Json line = StartLine(level, message);
  for (const auto& [key, value] : fields) line[key] = value;
  Write(level, line);
}

// gRPC has a line for every request and every connection that is wrong in some ways: one a second says enough.
void LogGrpc(gpr_log_func_args* args) {
  static std::atomic<int64_t> next_ns{0};
  static std::atomic<uint64_t> left_out{0};
  const int64_t now = absl::GetCurrentTimeNanos();
  int64_t next = next_ns.load();
  if (now < next || !next_ns.compare_exchange_strong(next, now + 1'000'000'000)) {
    left_out.fetch_add(1);
    return;
  }
  const LogLevel level = args->severity == GPR_LOG_SEVERITY_ERROR ? LogLevel::kError : LogLevel::kInfo;
  WriteFields(level, args->message, {{"source", "grpc"}, {"left_out_before", left_out.exchange(0)}});
}

}  // namespace

void LogInfo(std::string_view message, LogFields fields) { WriteFields(LogLevel::kInfo, message, fields); }
void LogWarning(std::string_view message, LogFields fields) { WriteFields(LogLevel::kWarning, message, fields); }
void LogError(std::string_view message, LogFields fields) { WriteFields(LogLevel::kError, message, fields); }

void LogObject(LogLevel level, std::string_view message, const Json& fields) {
  Json line = StartLine(level, message);
  line.update(fields);
  Write(level, line);
}

uint64_t DroppedLogLines() {
  Log& log = TheLog();
  return log.pool->overrun_counter() + log.sink->failed();
}

bool FlushLog(std::chrono::milliseconds at_most) {
  Log& log = TheLog();
  const uint64_t given = log.given.load();
  const auto end = std::chrono::steady_clock::now() + at_most;
  while (log.sink->written() + DroppedLogLines() < given) {
    if (std::chrono::steady_clock::now() >= end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

void CaptureLibraryLogs() {
  gpr_set_log_function(LogGrpc);
  google::protobuf::SetLogHandler(nullptr);
}

}  // namespace hilomoe
