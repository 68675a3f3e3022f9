#include <malloc.h>
#include <signal.h>
#include <time.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "tools/train/commands.h"
#include "tools/train/run_flags.h"
#include "tools/train/shared_flags.h"
#include "tools/train/trainer.h"

ABSL_FLAG(std::string, config, "", "training config, a textproto");
ABSL_FLAG(std::string, warm_start, "",
          "a checkpoint to go on from on a new log; its ids keep their rows, new ones follow");
ABSL_FLAG(bool, resume, false, "continue an interrupted run; config and data must be the same");

namespace hilomoe {
namespace {

// SIGINT and SIGTERM, polled: a handler would interrupt the kernels (see Gemm).
class StopSignals {
 public:
  StopSignals() {
    sigemptyset(&signals_);
    sigaddset(&signals_, SIGINT);
    sigaddset(&signals_, SIGTERM);
  }

  // The first call blocks the signals: before it, after it has once returned true and after Release they end the
  // program at once.
  bool Requested() {
    if (requested_) return true;
    if (!std::exchange(blocked_, true)) pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
    const timespec now{};
    requested_ = sigtimedwait(&signals_, nullptr, &now) > 0;
    if (requested_) Release();
    return requested_;
  }
  void Release() { pthread_sigmask(SIG_UNBLOCK, &signals_, nullptr); }

 private:
  sigset_t signals_;
  bool blocked_ = false, requested_ = false;
};

}  // namespace

Command TrainCommand() {
  return {.name = "train",
          .usage = "--config=FILE --output=DIR [flags]",
          .summary = "trains a model; Ctrl-C saves and stops",
          .flag_files = {__FILE__, kRunFlagsFile, kThreadsFlagFile, kSeedFlagFile},
          .prepare = [](const std::vector<std::string>& arguments) -> absl::StatusOr<Job> {
            if (!arguments.empty()) return absl::InvalidArgumentError(absl::StrCat("unexpected '", arguments[0], "'"));
            TrainOptions options;
            options.config_path = absl::GetFlag(FLAGS_config);
            options.data_dir = absl::GetFlag(FLAGS_data_dir);
            options.output_dir = absl::GetFlag(FLAGS_output);
            options.cache_dir = absl::GetFlag(FLAGS_cache_dir);
            options.warm_start = absl::GetFlag(FLAGS_warm_start);
            options.resume = absl::GetFlag(FLAGS_resume);
            HILOMOE_ASSIGN_OR_RETURN(options.threads, ThreadsFlag());
            options.seed = absl::GetFlag(FLAGS_seed);
            options.save_every_s = absl::GetFlag(FLAGS_save_every_s);
            const auto signals = std::make_shared<StopSignals>();
            options.stop_requested = [signals] { return signals->Requested(); };
            options.last_step_over = [signals] { signals->Release(); };
            if (options.config_path.empty()) return absl::InvalidArgumentError("--config: say the training config");
            if (options.output_dir.empty()) return absl::InvalidArgumentError("--output: say where the model goes");
            return [options](std::FILE*) {
              // Else malloc raises the bound whenever a large block is freed, and keeps such blocks for itself.
              ::mallopt(M_MMAP_THRESHOLD, 1 << 20);
              return Train(options);
            };
          }};
}

}  // namespace hilomoe
