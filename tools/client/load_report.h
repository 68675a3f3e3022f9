// What a load run showed: counts, speed, latencies, whether the scores were right.
#ifndef HILOMOE_TOOLS_CLIENT_LOAD_REPORT_H_
#define HILOMOE_TOOLS_CLIENT_LOAD_REPORT_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "hilomoe/v1/scoring_service.pb.h"
#include "tools/client/latency_histogram.h"
#include "tools/client/load_generator.h"
#include "tools/client/load_recorder.h"

namespace hilomoe {

// A swap begins when the version was published, as far as that is known, else `before` its first answer, and ends
// `after` its first answer.
struct SwapWindows {
  std::vector<absl::Time> published;
  absl::Duration before = absl::Milliseconds(500);
  absl::Duration after = absl::Milliseconds(100);
};

struct LoadReportOptions {
  SwapWindows swaps;
  absl::Duration timeline_step;  // zero: no time line
};

// Times in seconds since 1970, one a line; what follows them in a line is not read. For SwapWindows::published.
absl::StatusOr<std::vector<absl::Time>> ReadTimes(const std::string& path);

struct LoadReport {
  // Of the requests that were to be sent in the reported part of the run.
  struct Counts {
    int64_t sent = 0;
    int64_t good = 0;        // OK within the deadline
    int64_t refused = 0;     // RESOURCE_EXHAUSTED, or DEADLINE_EXCEEDED sooner than the deadline: the server's word
    int64_t failed = 0;      // all that is neither OK nor refused
    int64_t candidates = 0;  // of those that ended with OK
    std::map<std::string, int64_t> by_code;
    LatencyHistogram latency;  // of those that ended with OK
    LatencyHistogram refusal_latency;
  };
  struct Step {
    int64_t sent = 0, good = 0, refused = 0, failed = 0;
    LatencyHistogram latency;
  };

  Counts all;
  std::map<uint64_t, int64_t> by_version;
  int64_t pushbacks = 0;
  // Of the whole run, warm-up included.
  int64_t right = 0, wrong = 0, unknown_version = 0, unreadable = 0;
  LatencyHistogram predictor;  // encoding and evaluating, of the answers with timings
  // By the time that requests were to be sent at.
  int64_t swaps = 0;
  double seconds_in_swaps = 0;
  Counts in_swaps, steady;
  std::vector<Step> timeline;

  double seconds = 0;
  absl::Duration timeline_step;
  LoadRun run;
  std::string first_failure, first_wrong;

  // Whether every score that came was right, as far as it was checked.
  bool scores_are_right() const { return wrong + unknown_version + unreadable == 0; }

  // Some lines for people, each ending in a newline.
  std::string ToText() const;
  // One JSON object; `setup` is put in front.
  std::string ToJson(const std::vector<std::pair<std::string, std::string>>& setup) const;
};

LoadReport MakeLoadReport(const LoadRun& run, const LoadRecorder& recorder, const LoadOptions& options,
                          absl::Span<const v1::ScoreRequest> requests, const LoadReportOptions& report_options);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_CLIENT_LOAD_REPORT_H_
