#include "tools/client/echo_command.h"

#include <csignal>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "model/file_io.h"
#include "model/status_macros.h"
#include "tools/client/connection_flags.h"
#include "tools/client/echo_server.h"

ABSL_FLAG(std::string, listen, "127.0.0.1:0", "address to serve on; port 0: any that is free");
ABSL_FLAG(std::string, port_file, "", "JSON file for the port, written when it is served");
ABSL_FLAG(int64_t, scores, 100, "in every response");
ABSL_FLAG(int64_t, threads, 2, "that wait on the completion queue");
ABSL_FLAG(int64_t, work_us, 0, "CPU time that every call takes");
ABSL_FLAG(bool, callback, false, "use gRPC's callback API instead of the asynchronous one, to compare them");

namespace hilomoe {
namespace {

absl::Status RunEcho(const EchoOptions& options, const std::string& port_file, std::FILE* messages) {
  // Before any thread, so that all of them leave the signals to sigwait.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  HILOMOE_ASSIGN_OR_RETURN(const std::unique_ptr<EchoServer> server, EchoServer::Start(options));
  if (!port_file.empty()) {
    HILOMOE_RETURN_IF_ERROR(WriteFile(port_file, absl::StrCat("{\"listen_port\": ", server->port(), "}\n")));
  }
  std::fprintf(messages, "echo on port %d\n", server->port());
  int signal = 0;
  sigwait(&signals, &signal);
  return absl::OkStatus();
}

absl::StatusOr<Job> Prepare(const std::vector<std::string>& arguments) {
  if (!arguments.empty()) return absl::InvalidArgumentError(absl::StrCat("unexpected '", arguments[0], "'"));
  const int64_t scores = absl::GetFlag(FLAGS_scores), threads = absl::GetFlag(FLAGS_threads);
  HILOMOE_RETURN_IF_ERROR(CheckRange("scores", scores, 0, 1'000'000));
  HILOMOE_RETURN_IF_ERROR(CheckRange("threads", threads, 1, 256));
  const int64_t work_us = absl::GetFlag(FLAGS_work_us);
  HILOMOE_RETURN_IF_ERROR(CheckRange("work_us", work_us, 0, 1'000'000));
  EchoOptions options;
  options.work_us = static_cast<int>(work_us);
  options.callback = absl::GetFlag(FLAGS_callback);
  options.listen_address = absl::GetFlag(FLAGS_listen);
  options.candidates = static_cast<uint32_t>(scores);
  options.threads = static_cast<int>(threads);
  return Job([options, port_file = absl::GetFlag(FLAGS_port_file)](std::FILE* messages) {
    return RunEcho(options, port_file, messages);
  });
}

}  // namespace

Command EchoCommand() {
  Command command;
  command.name = "echo";
  command.usage = "[flags]";
  command.summary = "Answers every Score call with the same scores: what gRPC alone costs, for `bench`.";
  command.flag_files = {__FILE__};
  command.prepare = Prepare;
  return command;
}

}  // namespace hilomoe
