// Scores a log through a server: one line of output per row, in the order of the rows, as hilomoe-client score does.
//
// Memory is bounded by the requests in flight, and, unless metrics are off, 17 bytes per labelled row. The scores
// appear under the output's name only when all are there.
#ifndef HILOMOE_TOOLS_CLIENT_SCORE_LOG_H_
#define HILOMOE_TOOLS_CLIENT_SCORE_LOG_H_

#include <cstddef>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tools/client/score_pipeline.h"
#include "tools/client/score_report.h"
#include "tools/client/server_connection.h"

namespace hilomoe {

struct ScoreLogOptions {
  ConnectionOptions server;
  ScorePipeline::Options pipeline;
  std::string input;                      // a log; "-": the standard input
  std::string output;                     // see ScoreWriter
  std::string report;                     // a JSON file; empty: none
  std::vector<std::string> keep_columns;  // of the log, put before the score
  std::string group_by;                   // empty: the model's, if the log has that column
  bool flat = false;                      // one request per row; groups count for gAUC alone
  size_t max_candidates = 1000;           // of a request
  bool metrics = true;                    // if the log has the model's label column
};

// Draws a progress bar on `progress`; null: none. Errors name the log's lines, and the server's code and message.
absl::StatusOr<ScoreReport> ScoreLog(const ScoreLogOptions& options, std::FILE* progress);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_CLIENT_SCORE_LOG_H_
