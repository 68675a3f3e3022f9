#include "server/run_server.h"

#include <pthread.h>
#include <signal.h>

#include <cerrno>
#include <chrono>
#include <ctime>

#include "absl/strings/str_cat.h"
#include "model/file_io.h"
#include "model/status_macros.h"
#include "server/log.h"
#include "server/server.h"

namespace hilomoe {
namespace {

sigset_t StopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

// The signal that came; 0 when none did in time.
int WaitForSignal(const sigset_t& signals, std::chrono::milliseconds at_most) {
  const auto end = std::chrono::steady_clock::now() + at_most;
  while (true) {
    const auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(end - std::chrono::steady_clock::now());
    if (left.count() <= 0) return 0;
    const timespec timeout = {static_cast<time_t>(left.count() / 1'000'000'000),
                              static_cast<long>(left.count() % 1'000'000'000)};
    const int signal = sigtimedwait(&signals, nullptr, &timeout);
    if (signal > 0) return signal;
    if (errno != EINTR) return 0;
  }
}

}  // namespace

absl::Status RunServer(const ServerOptions& options) {
  const sigset_t signals = StopSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  CaptureLibraryLogs();
  HILOMOE_ASSIGN_OR_RETURN(const std::unique_ptr<Server> server, Server::BuildAndStart(options));
  const v1::ServerConfig& config = options.config;
  if (!options.port_file.empty()) {
    HILOMOE_RETURN_IF_ERROR(
        WriteFile(options.port_file, absl::StrCat("{\"listen_port\": ", server->listen_port(),
                                                  ", \"metrics_port\": ", server->metrics_port(), "}\n")));
  }
  LogInfo("ready", {{"listen_address", config.listen_address()},
                    {"listen_port", server->listen_port()},
                    {"metrics_address", config.metrics_address()},
                    {"metrics_port", server->metrics_port()},
                    {"version", HILOMOE_VERSION}});

  int signal = 0;
  sigwait(&signals, &signal);
  LogInfo("draining", {{"signal", signal}, {"drain_ms", config.drain_ms()}});
  server->StartDraining();
  if (WaitForSignal(signals, std::chrono::milliseconds(config.drain_ms())) != 0) LogInfo("drain cut short by a signal");
  if (!server->Shutdown(std::chrono::milliseconds(config.drain_deadline_ms()))) {
    LogWarning("requests were cancelled at the drain deadline", {{"drain_deadline_ms", config.drain_deadline_ms()}});
  }
  LogInfo("stopped");
  return absl::OkStatus();
}

}  // namespace hilomoe
