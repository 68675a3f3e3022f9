// metrics.jsonl: what a training run measured, one JSON object a line, and all that report.html is drawn from.
//
// Every object has "event"; what has no value is null. Epochs count from 1, stages, layers and experts from 0;
// "step" counts the batches of the whole run; "seconds" is training time so far, over all processes of the run and
// without what a kill cost. METRICS stands for MetricsJson's object (tools/common/metrics_json.h), UTILISATION for
//   [{"block", "layers": [{"entropy", "scores": [K], "dead": [experts]}]}]
// where "block" is its name, ModelSpec::BlockName ("blocks.0"), and the rest the mean scores of the validation (final:
// the split's) rows; entropy is the mean over rows, as a share of ln K; an expert is dead when its mean score is below
// 1 % of an even share (0.01 / K). Empty while experts are off.
//
//   run         format (2), created (RFC 3339), created_by, config (textproto), config_digest (XXH3-64 of it, hex),
//               seed, threads, parameters, parameters_without_experts, flops {row, row_without_experts, request,
//               candidate}, rows {train, train_positives, valid}, monitor, stages [{name, experts, epochs}];
//               earlier_lost: true when a resumed run's file was not there as saved, and begins here
//   resume      step, seconds: another process goes on from here
//   progress    stage, epoch, step, loss and routing_loss (means over the interval's batches), gradient_norm and
//               gradient_norm_max (before clipping), learning_rates {group: rate}, rows_per_s, seconds
//   evaluation  stage, epoch (0: before the stage's first step), step, metrics: METRICS, utilisation: UTILISATION,
//               best (the stage's best so far, which is kept), rate_factor (of the learning rates from here on),
//               seconds
//   stage_end   stage, epoch, step, kept (false: never better than its start, undone), metrics: METRICS of what is
//               kept, seconds
//   final       split ("valid" or "test"), metrics: METRICS, utilisation: UTILISATION, calibration {bins: [[rows, mean
//               probability, mean label]], error}, histogram {negatives, positives}, fixed_routing: METRICS with every
//               row's scores replaced by the split's means (null without experts), slices [{column, distinct, values:
//               [{value, metrics: METRICS}], rest: METRICS or null}]
//   end         step, seconds
//
// After a kill at any moment the file may end in lines, or a torn one, of steps that the resumed run repeats: what was
// not there at the latest save is cut off before it goes on.
#ifndef HILOMOE_TOOLS_TRAIN_RUN_LOG_H_
#define HILOMOE_TOOLS_TRAIN_RUN_LOG_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace hilomoe {

inline constexpr char kRunLogName[] = "metrics.jsonl";
inline constexpr int kRunLogFormat = 2;  // 1 numbered the blocks: the deep tower's, then the cross layers

// How much of the file there was at a save, and what it was.
struct RunLogMark {
  uint64_t bytes = 0;
  uint64_t xxh3 = 0;  // of these bytes
};

// Appends. One thread. Errors name the path and the system's reason.
class RunLog {
 public:
  RunLog();
  RunLog(RunLog&& other) noexcept;
  RunLog& operator=(RunLog&& other) noexcept;
  ~RunLog();

  // A new file; one that stood there is replaced.
  static absl::StatusOr<RunLog> Create(const std::string& path);
  // Goes on behind `mark`, cutting off the rest. A file that does not begin with the marked bytes (gone, shortened, of
  // another run) is replaced; empty() tells.
  static absl::StatusOr<RunLog> Resume(const std::string& path, const RunLogMark& mark);

  // One line, handed to the system before it returns. Bytes that are no UTF-8 are replaced.
  absl::Status Append(const nlohmann::ordered_json& event);
  // Waits for the disk, so that a mark that was saved is never ahead of the file.
  absl::StatusOr<RunLogMark> Sync();
  bool empty() const { return bytes_ == 0; }

 private:
  RunLog(std::string path, int fd);

  std::string path_;
  int fd_ = -1;
  uint64_t bytes_ = 0;
  struct Hash;
  std::unique_ptr<Hash> hash_;
};

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_RUN_LOG_H_
