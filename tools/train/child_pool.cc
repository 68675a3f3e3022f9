#include "tools/train/child_pool.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "model/file_io.h"
#include "model/status_macros.h"

namespace hilomoe {
namespace {

constexpr int kCannotStart = 127;

// Blocks what the pool waits for; the destructor unblocks it.
class BlockedSignals {
 public:
  BlockedSignals() {
    sigemptyset(&signals_);
    for (const int signal : {SIGINT, SIGTERM, SIGCHLD}) sigaddset(&signals_, signal);
    pthread_sigmask(SIG_BLOCK, &signals_, &before_);
  }
  ~BlockedSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

  const sigset_t& before() const { return before_; }
  // The signal that came within a fifth of a second, or -1.
  int Wait() const {
    const timespec fifth{.tv_sec = 0, .tv_nsec = 200'000'000};
    return sigtimedwait(&signals_, nullptr, &fifth);
  }

 private:
  sigset_t signals_, before_;
};

absl::StatusOr<pid_t> Start(const ChildJob& job, const sigset_t& signals) {
  std::vector<char*> arguments;
  for (const std::string& argument : job.command) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  const int log = open(job.log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (log < 0) return SystemError(errno, "cannot open", job.log_path);
  const int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) {
    // Between fork and exec: nothing but system calls.
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(kCannotStart);
    dup2(nothing, STDIN_FILENO);
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    pthread_sigmask(SIG_SETMASK, &signals, nullptr);
    execv(arguments[0], arguments.data());
    _exit(kCannotStart);
  }
  const int error = errno;
  close(log);
  if (nothing >= 0) close(nothing);
  if (pid < 0) return SystemError(error, "cannot start", job.command[0]);
  return pid;
}

absl::Status Ended(const ChildJob& job, int wait_status) {
  if (WIFSIGNALED(wait_status)) {
    const int signal = WTERMSIG(wait_status);
    return absl::AbortedError(absl::StrCat("killed by signal ", signal, " (", strsignal(signal), ")",
                                           signal == SIGKILL ? "; out of memory?" : ""));
  }
  const int code = WEXITSTATUS(wait_status);
  if (code == 0) return absl::OkStatus();
  if (code == kCannotStart) return absl::InternalError(absl::StrCat("cannot run '", job.command[0], "'"));
  const std::string line = LastLine(job.log_path);
  return absl::UnknownError(line.empty() ? absl::StrCat("exit code ", code) : line);
}

}  // namespace

std::string LastLine(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadFile(path);
  if (!text.ok()) return "";
  absl::string_view rest = absl::StripTrailingAsciiWhitespace(*text);
  return std::string(rest.substr(rest.find_last_of("\r\n") + 1));
}

absl::Status RunChildren(const ChildPoolOptions& options) {
  struct Child {
    pid_t pid;
    ChildJob job;
  };
  std::vector<Child> running;
  const BlockedSignals signals;
  int stops = 0;
  absl::Status failure;
  while (true) {
    while (stops == 0 && failure.ok() && running.size() < static_cast<size_t>(options.jobs)) {
      std::optional<ChildJob> job = options.next();
      if (!job.has_value()) break;
      const absl::StatusOr<pid_t> pid = Start(*job, signals.before());
      if (pid.ok()) {
        running.push_back({*pid, *std::move(job)});
      } else {
        failure = pid.status();  // the machine's trouble, not the job's: let the others end and stop
      }
    }
    if (running.empty()) break;
    if (options.tick) options.tick(running.size());
    if (const int signal = signals.Wait(); signal == SIGINT || signal == SIGTERM) {
      ++stops;
      for (const Child& child : running) kill(child.pid, stops == 1 ? SIGTERM : SIGKILL);
    }
    for (size_t i = 0; i < running.size();) {
      int wait_status = 0;
      if (waitpid(running[i].pid, &wait_status, WNOHANG) != running[i].pid) {
        ++i;
        continue;
      }
      const Child ended = std::move(running[i]);
      running.erase(running.begin() + static_cast<ptrdiff_t>(i));
      // What a stopped child says is no failure of the job; but it may have come to its end just before.
      const absl::Status status = Ended(ended.job, wait_status);
      if (stops == 0 || status.ok()) options.done(ended.job, status);
    }
  }
  if (stops > 0) return absl::CancelledError("stopped; the same command goes on from here");
  return failure;
}

}  // namespace hilomoe
