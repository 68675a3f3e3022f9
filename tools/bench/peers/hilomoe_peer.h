// hilomoe as one of the engines that compare.py checks and times.
#ifndef HILOMOE_TOOLS_BENCH_PEERS_HILOMOE_PEER_H_
#define HILOMOE_TOOLS_BENCH_PEERS_HILOMOE_PEER_H_

#include <istream>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace hilomoe {

struct PeerOptions {
  std::string requests;                                     // file of length-delimited GoldenRequest messages
  std::vector<std::pair<std::string, std::string>> models;  // precision, model file; at least one
};

// Answers each line of `in`, a JSON object, with a line to `out`, until `in` ends. A model of precision "fp32" makes
// two rows: "fp32", from rows of the tables to scores, and "fp32_ids", which looks the ids up first.
//   {"do": "describe"}                                               -> {"version": instruction set, "rows": [..]}
//   {"do": "score", "row": "fp32", "output": FILE}                   -> {}, and every request's scores, float32, by
//                                                                       ascending number of candidates
//   {"do": "time", "row": "fp32", "candidates": 100, "ms": 100}      -> {"ns": of one request}; takes 1.2 times ms
// One thread. An error ends it: a request or a model that cannot be read, a question that makes no sense.
absl::Status ServePeer(const PeerOptions& options, std::istream& in, std::ostream& out);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_BENCH_PEERS_HILOMOE_PEER_H_
