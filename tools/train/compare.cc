#include "tools/train/compare.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <map>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "model/file_io.h"
#include "model/status_macros.h"
#include "runtime/cpu_count.h"
#include "tools/common/progress_bar.h"
#include "tools/train/child_pool.h"
#include "tools/train/comparison_choice.h"
#include "tools/train/comparison_plan.h"
#include "tools/train/comparison_report.h"
#include "tools/train/comparison_result.h"
#include "tools/train/comparison_runs.h"
#include "tools/train/training_config.h"

namespace hilomoe {
namespace {

namespace fs = std::filesystem;
using State = ComparisonRun::State;

// Held as long as this program or a child of it lives: children inherit the descriptor.
class OutputLock {
 public:
  static absl::StatusOr<OutputLock> Take(const std::string& output, double wait_s) {
    const std::string path = output + "/lock";
    OutputLock lock(open(path.c_str(), O_RDWR | O_CREAT, 0666));
    if (lock.fd_ < 0) return SystemError(errno, "cannot open", path);
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(wait_s);
    bool said = false;
    while (flock(lock.fd_, LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK) return SystemError(errno, "cannot lock", path);
      if (std::chrono::steady_clock::now() >= end) {
        return absl::FailedPreconditionError(
            absl::StrCat("'", output, "' is in use by another comparison, or by trainings that one has left behind"));
      }
      if (!std::exchange(said, true)) std::fprintf(stderr, "waiting for '%s', which is in use\n", output.c_str());
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    return lock;
  }
  OutputLock(OutputLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  OutputLock& operator=(OutputLock&&) = delete;
  ~OutputLock() {
    if (fd_ >= 0) close(fd_);
  }

 private:
  explicit OutputLock(int fd) : fd_(fd) {}
  int fd_;
};

class Comparison {
 public:
  Comparison(const CompareOptions& options, const ComparisonPlan& plan, ComparisonRuns runs, ComparisonChoice choice)
      : options_(options),
        plan_(plan),
        runs_(std::move(runs)),
        choice_(std::move(choice)),
        jobs_(options.jobs > 0 ? options.jobs : std::max(1, UsableCpuCount() / options.run_threads)) {}

  absl::Status Run() {
    HILOMOE_RETURN_IF_ERROR(Train());
    HILOMOE_RETURN_IF_ERROR(FreezeChoice(plan_, runs_, options_.output_dir, &choice_));
    HILOMOE_RETURN_IF_ERROR(ScoreTestRows());
    TestRows rows;
    for (ComparisonRun& run : runs_.all()) {
      if (IsTested(run) && run.test_error.empty()) HILOMOE_RETURN_IF_ERROR(ReadTest(&run, &rows));
    }
    if (rows.labels.empty()) return NothingTested();
    HILOMOE_ASSIGN_OR_RETURN(const ComparisonResult result,
                             Analyse(plan_, runs_, choice_, rows, jobs_ * options_.run_threads));
    return Write(result);
  }

 private:
  // The trial that runs on all seeds; nullopt while it is not known.
  std::optional<size_t> ChosenTrial(size_t arm) const {
    return choice_.arms[arm].trial.has_value() ? choice_.arms[arm].trial : runs_.Choice(arm);
  }
  bool IsPlanned(const ComparisonRun& run) const {
    const std::optional<size_t> chosen = ChosenTrial(run.arm);
    const bool selects = run.seed < plan_.selection_seeds && !choice_.arms[run.arm].trial.has_value();
    return selects || chosen == run.trial;
  }
  bool IsTested(const ComparisonRun& run) const { return run.complete() && choice_.arms[run.arm].trial == run.trial; }
  // Runs that are still to end, with those of trials that are not chosen yet.
  int64_t RunsLeft() const;
  std::optional<ChildJob> NextTraining();
  absl::Status Train();
  absl::Status ScoreTestRows();
  absl::Status NothingTested() const;
  absl::Status Write(const ComparisonResult& result) const;

  const CompareOptions& options_;
  const ComparisonPlan& plan_;
  ComparisonRuns runs_;
  ComparisonChoice choice_;
  const int jobs_;
  absl::Status failure_;  // of writing what belongs to a run
};

int64_t Comparison::RunsLeft() const {
  int64_t left = 0;
  for (size_t a = 0; a < plan_.arms.size(); ++a) {
    const bool known = ChosenTrial(a).has_value();
    for (const ComparisonRun& run : runs_.all()) {
      const bool open = run.state == State::kPending || run.state == State::kRunning;
      if (run.arm == a && open && IsPlanned(run)) ++left;
    }
    if (!known && !runs_.SelectionOver(a)) left += static_cast<int64_t>(plan_.seeds.size() - plan_.selection_seeds);
  }
  return left;
}

std::optional<ChildJob> Comparison::NextTraining() {
  std::vector<ComparisonRun>& all = runs_.all();
  const auto found = std::find_if(
      all.begin(), all.end(), [&](const ComparisonRun& run) { return run.state == State::kPending && IsPlanned(run); });
  if (found == all.end() || !failure_.ok()) return std::nullopt;
  bool resume = false;
  failure_ = BeginRun(plan_, &*found, &resume);
  if (!failure_.ok()) return std::nullopt;
  ChildJob job{.id = static_cast<size_t>(found - all.begin()), .command = {}, .log_path = found->Path("log.txt")};
  job.command = {options_.program,
                 "train",
                 "--config=" + found->Path("config.textproto"),
                 "--data_dir=" + options_.data_dir,
                 "--output=" + found->directory,
                 "--cache_dir=" + (options_.cache_dir.empty() ? options_.output_dir + "/cache" : options_.cache_dir),
                 absl::StrCat("--threads=", options_.run_threads),
                 absl::StrCat("--save_every_s=", options_.save_every_s)};
  if (resume) job.command.push_back("--resume");
  return job;
}

absl::Status Comparison::Train() {
  const int64_t total = RunsLeft();
  if (total == 0) return absl::OkStatus();
  std::fprintf(stderr, "%d runs to train, %d at once\n", static_cast<int>(total), jobs_);
  ProgressBar progress({.label = "train", .unit = "runs", .total = total, .interval_s = 60});
  int failed = 0;
  HILOMOE_RETURN_IF_ERROR(RunChildren({.jobs = jobs_,
                                       .next = [&] { return NextTraining(); },
                                       .done =
                                           [&](const ChildJob& job, const absl::Status& ended) {
                                             ComparisonRun& run = runs_.all()[job.id];
                                             if (const absl::Status written = EndRun(ended, &run); failure_.ok())
                                               failure_ = written;
                                             failed += run.state == State::kFailed;
                                           },
                                       .tick =
                                           [&](size_t running) {
                                             progress.Update(total - RunsLeft(),
                                                             absl::StrCat(running, " running, ", failed, " failed"));
                                           }}));
  HILOMOE_RETURN_IF_ERROR(failure_);
  progress.Update(total - RunsLeft());
  progress.Finish(failed > 0 ? absl::StrCat(failed, " failed") : "");
  return absl::OkStatus();
}

absl::Status Comparison::ScoreTestRows() {
  std::vector<size_t> left;
  for (size_t i = 0; i < runs_.all().size(); ++i) {
    const ComparisonRun& run = runs_.all()[i];
    if (IsTested(run) && !fs::exists(run.Path("test.safetensors"))) left.push_back(i);
  }
  if (left.empty()) return absl::OkStatus();
  const std::vector<std::string> logs = InDirectory(options_.data_dir, plan_.data.test());
  ProgressBar progress({.label = "test", .unit = "runs", .total = static_cast<int64_t>(left.size()), .interval_s = 60});
  size_t next = 0;
  int64_t ended_runs = 0;
  HILOMOE_RETURN_IF_ERROR(RunChildren(
      {.jobs = jobs_,
       .next = [&]() -> std::optional<ChildJob> {
         if (next == left.size()) return std::nullopt;
         const ComparisonRun& run = runs_.all()[left[next]];
         ChildJob job{.id = left[next++], .command = {}, .log_path = run.Path("log.txt")};
         job.command = {options_.program, "evaluate", "--checkpoint=" + run.Path("checkpoint"),
                        "--scores=" + run.Path("test.safetensors"), absl::StrCat("--threads=", options_.run_threads)};
         job.command.insert(job.command.end(), logs.begin(), logs.end());
         return job;
       },
       .done =
           [&](const ChildJob& job, const absl::Status& ended) {
             ++ended_runs;
             if (!ended.ok()) runs_.all()[job.id].test_error = std::string(ended.message());
           },
       .tick = [&](size_t) { progress.Update(ended_runs); }}));
  progress.Update(ended_runs);
  progress.Finish();
  return absl::OkStatus();
}

absl::Status Comparison::NothingTested() const {
  for (const ComparisonRun& run : runs_.all()) {
    if (!run.test_error.empty()) return absl::AbortedError(absl::StrCat("no test rows: ", run.test_error));
  }
  for (const ComparisonRun& run : runs_.all()) {
    if (!run.error.empty()) {
      return absl::AbortedError(absl::StrCat("every run failed; '", run.directory, "': ", run.error));
    }
  }
  return absl::AbortedError("the test logs have no rows with labels");
}

absl::Status Comparison::Write(const ComparisonResult& result) const {
  const ComparisonReport report = MakeReport(plan_, runs_, choice_, result);
  const std::string name = options_.output_dir + "/comparison", markdown = ReportMarkdown(report);
  HILOMOE_RETURN_IF_ERROR(WriteFile(name + ".json", ReportJson(plan_, runs_, choice_, result)));
  HILOMOE_RETURN_IF_ERROR(WriteFile(name + ".html", ReportHtml(report)));
  HILOMOE_RETURN_IF_ERROR(WriteFile(name + ".md", markdown));
  std::fputs(markdown.c_str(), stdout);
  std::fflush(stdout);  // before what stderr says, where both go to one file
  std::fprintf(stderr, "'%s.md', .html and .json\n", name.c_str());
  return absl::OkStatus();
}

}  // namespace

absl::Status Compare(const CompareOptions& options) {
  HILOMOE_ASSIGN_OR_RETURN(const ComparisonPlan plan, ReadComparison(options.comparison_path));
  std::error_code error;
  fs::create_directories(options.output_dir, error);
  if (error) {
    return absl::InvalidArgumentError(absl::StrCat("cannot create '", options.output_dir, "': ", error.message()));
  }
  HILOMOE_ASSIGN_OR_RETURN(const OutputLock lock, OutputLock::Take(options.output_dir, options.lock_wait_s));
  // Noticed late, a wrong name costs nothing but the wait: the runs are kept.
  for (const std::string& path : InDirectory(options.data_dir, plan.data.test())) {
    if (!fs::exists(path)) std::fprintf(stderr, "the test log '%s' is not there yet\n", path.c_str());
  }
  HILOMOE_ASSIGN_OR_RETURN(ComparisonRuns runs, ComparisonRuns::Open(plan, options.output_dir, options.retry_failed));
  HILOMOE_ASSIGN_OR_RETURN(ComparisonChoice choice, ReadChoice(plan, runs, options.output_dir));
  return Comparison(options, plan, std::move(runs), std::move(choice)).Run();
}

}  // namespace hilomoe
