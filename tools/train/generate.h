// A synthetic click log whose truth is known: for trying the tools, measuring them and comparing models without real
// data.
//
// Requests follow each other in time; each is one user in one context with several candidate items, of which a click is
// drawn with a known probability (generate_world.h). The columns:
//
//   label         0 or 1
//   request_id    INT64, rising; the rows of a request stand together
//   user_id       STRING, "u17"
//   hour, weekday INT64, 0..23 and 0..6 (0 = Monday)
//   device        STRING
//   country       STRING, empty for some users
//   account_days  NUMERIC, empty for some users
//   hist_items    the user's last clicks before this request, `^` between item ids, oldest first
//   item_id       INT64
//   topic         STRING, the top of the item's category tree
//   price         NUMERIC, log-normal
//   position      INT64, from 1, in the page
//
// The log is cut by time into train (80 % of the rows), valid and test (10 % each), never inside a request. Beside them
// ceiling.json tells, for each, the click rate and the metrics of the true probabilities: what no model can exceed but
// by luck.
//
// The same options give the same bytes on any machine (compressed: with the same zlib or zstd). Memory, whatever the
// number of rows: about 150 bytes a user or item, 4 * history_length a user and 50 a ceiling row.
//
// Threads: pure function. Errors: INVALID_ARGUMENT names the option, RESOURCE_EXHAUSTED for want of memory; file errors
// name the file. The files appear under their names together at the end, ceiling.json last, and none of them after an
// error while writing.
#ifndef HILOMOE_TOOLS_TRAIN_GENERATE_H_
#define HILOMOE_TOOLS_TRAIN_GENERATE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "tools/common/byte_sink.h"
#include "tools/common/metrics.h"

namespace hilomoe {

struct GenerateOptions {
  std::string output_dir;  // created if it does not exist
  Compression compression = Compression::kGzip;
  uint64_t seed = 1;
  int64_t rows = 1'000'000;  // of the three files together; >= 20 * max_candidates
  int64_t users = 5'000;
  int64_t items = 2'000;       // >= max_candidates
  int64_t topics = 12;         // >= 3
  int64_t min_candidates = 5;  // of a request
  int64_t max_candidates = 20;
  int64_t history_length = 20;                 // 0 = none
  int64_t days = 28;                           // that the log spans
  int64_t ceiling_rows = 1 << 20;              // measured of each file, from its start
  std::function<void(int64_t rows)> progress;  // called after every request with the rows so far
};

struct GenerateReport {
  struct Split {
    std::string name;  // train, valid, test
    std::string path;
    int64_t rows = 0;
    int64_t requests = 0;
    int64_t clicks = 0;
    BinaryMetrics ceiling;  // of the true probabilities, grouped by request
  };
  std::vector<Split> splits;
};

absl::Status GenerateLog(const GenerateOptions& options, GenerateReport* report);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_GENERATE_H_
