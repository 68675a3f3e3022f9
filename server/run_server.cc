#include "server/run_server.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <ctime>
#include <future>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/file_io.h"
#include "model/status_macros.h"
#include "server/free_memory.h"
#include "server/log.h"
#include "server/server.h"
#include "server/service_manager.h"

namespace hilomoe {
namespace {

using Clock = std::chrono::steady_clock;

// How late the start of serving, or a signal during the start, may be noticed.
constexpr std::chrono::milliseconds kStartPoll{10};
// How often memory that was freed is looked at, and how much of it the process keeps at most.
constexpr std::chrono::seconds kFreeMemoryPoll{5};
constexpr size_t kMostFreeBytes = size_t{128} << 20;

sigset_t HandledSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
  return signals;
}

// The signal that came; 0 when none did in time.
int WaitForSignal(const sigset_t& signals, std::chrono::milliseconds at_most) {
  const auto end = Clock::now() + at_most;
  while (true) {
    const auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(end - Clock::now());
    if (left.count() <= 0) return 0;
    const timespec timeout = {static_cast<time_t>(left.count() / 1'000'000'000),
                              static_cast<long>(left.count() % 1'000'000'000)};
    const int signal = sigtimedwait(&signals, nullptr, &timeout);
    if (signal > 0) return signal;
    if (errno != EINTR) return 0;
  }
}

void Notify(std::string_view state) {
  if (const absl::Status status = NotifyServiceManager(state); !status.ok()) {
    LogWarning("cannot tell the service manager", {{"error", std::string(status.message())}});
  }
}

// Every connection takes a descriptor, and the usual soft limit of 1,024 is meant for programs that use select(2).
void RaiseFileDescriptorLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

// Null when a signal ended the start.
absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options, const sigset_t& signals) {
  Notify("STATUS=loading models");
  auto starting = std::async(std::launch::async, [&options]() -> absl::StatusOr<std::unique_ptr<Server>> {
    try {
      return Server::BuildAndStart(options);
    } catch (const std::system_error& error) {  // of threads that cannot be had
      return absl::ResourceExhaustedError(absl::StrCat("cannot start a thread: ", error.what()));
    }
  });
  while (starting.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
    const int signal = WaitForSignal(signals, kStartPoll);
    if (signal == 0 || signal == SIGHUP) continue;
    // Nothing is served that would need a drain, and a load can take minutes.
    LogInfo("stopped while starting", {{"signal", signal}});
    FlushLog(std::chrono::seconds(1));
    _exit(0);
  }
  return starting.get();
}

absl::Status WritePortFile(const std::string& path, const Server& server) {
  if (path.empty()) return absl::OkStatus();
  std::string text =
      absl::StrCat("{\"listen_port\": ", server.listen_port(), ", \"metrics_port\": ", server.metrics_port());
  if (server.admin_port() != 0) absl::StrAppend(&text, ", \"admin_port\": ", server.admin_port());
  if (server.probe_port() != 0) absl::StrAppend(&text, ", \"probe_port\": ", server.probe_port());
  return WriteFile(path, absl::StrCat(text, "}\n"));
}

// Returns the signal that asks to stop.
int Serve(const sigset_t& signals, Server* server) {
  FreeMemory free_memory(kMostFreeBytes);
  while (true) {
    const int signal = WaitForSignal(signals, kFreeMemoryPoll);
    if (signal == 0) {
      if (free_memory.GiveBack()) LogInfo("gave memory back that had been freed");
      continue;
    }
    if (signal != SIGHUP) return signal;
    LogInfo("reading the certificates on SIGHUP");
    server->ReloadCertificates();
  }
}

void Drain(const v1::ServerConfig& config, const sigset_t& signals, Server* server) {
  server->StartDraining();
  const auto end = Clock::now() + std::chrono::milliseconds(config.drain_ms());
  while (true) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now());
    const int signal = WaitForSignal(signals, left);
    if (signal == SIGHUP) continue;
    if (signal != 0) LogInfo("drain cut short by a signal", {{"signal", signal}});
    break;
  }
  if (!server->Shutdown(std::chrono::milliseconds(config.drain_deadline_ms()))) {
    LogWarning("requests were cancelled at the drain deadline", {{"drain_deadline_ms", config.drain_deadline_ms()}});
  }
}

}  // namespace

absl::Status RunServer(const ServerOptions& options) {
  const sigset_t signals = HandledSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);  // whoever reads the log may go
  CaptureLibraryLogs();
  RaiseFileDescriptorLimit();
  HILOMOE_ASSIGN_OR_RETURN(std::unique_ptr<Server> server, Start(options, signals));
  const v1::ServerConfig& config = options.config;
  HILOMOE_RETURN_IF_ERROR(WritePortFile(options.port_file, *server));
  LogInfo("ready", {{"listen_address", config.listen_address()},
                    {"listen_port", server->listen_port()},
                    {"metrics_address", config.metrics_address()},
                    {"metrics_port", server->metrics_port()},
                    {"admin_address", config.admin_address()},
                    {"admin_port", server->admin_port()},
                    {"probe_address", config.probe_address()},
                    {"probe_port", server->probe_port()},
                    {"version", HILOMOE_VERSION}});
  Notify("READY=1\nSTATUS=serving");

  const int signal = Serve(signals, server.get());
  LogInfo("draining", {{"signal", signal}, {"drain_ms", config.drain_ms()}});
  Notify("STOPPING=1\nSTATUS=draining");
  Drain(config, signals, server.get());
  server.reset();
  LogInfo("stopped");
  return absl::OkStatus();
}

}  // namespace hilomoe
