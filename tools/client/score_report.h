// What scoring a log gave: counts, speed, latency, and how good the scores are.
#ifndef HILOMOE_TOOLS_CLIENT_SCORE_REPORT_H_
#define HILOMOE_TOOLS_CLIENT_SCORE_REPORT_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tools/client/latency_histogram.h"
#include "tools/common/metrics.h"

namespace hilomoe {

struct ScoreReport {
  std::string model;
  std::map<uint64_t, int64_t> rows_by_version;  // more than one if the server changed models meanwhile
  int64_t rows = 0;
  int64_t requests = 0;
  int64_t retries = 0;
  int64_t context_splits = 0;  // groups parted where a context cell changed
  double seconds = 0;          // from the first row read to the last score written
  LatencyHistogram latency;    // per request, as the client sees it, retries included
  std::vector<std::string> absent_features;
  std::optional<BinaryMetrics> metrics;  // of the labelled rows; none: the log has no label column

  // Some lines for people, each ending in a newline.
  std::string ToText() const;
  // One JSON object; a metric without a value is null.
  std::string ToJson() const;
};

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_CLIENT_SCORE_REPORT_H_
