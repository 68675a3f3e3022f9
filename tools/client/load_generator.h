// Sends the requests of a set, over and over, and records how each one ended.
//
// Closed loop: `concurrency` requests are under way at any time; an answer sends the next one. It measures what a
// server gives at most, and what a request takes on an idle one (concurrency 1). Open loop: requests are sent at the
// times of a Poisson process, whether earlier ones have been answered or not, and their latency counts from those
// times, so that a server that stalls is charged for everybody who came meanwhile.
#ifndef HILOMOE_TOOLS_CLIENT_LOAD_GENERATOR_H_
#define HILOMOE_TOOLS_CLIENT_LOAD_GENERATOR_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "grpcpp/grpcpp.h"
#include "hilomoe/v1/scoring_service.pb.h"
#include "tools/client/expected_scores.h"
#include "tools/client/latency_histogram.h"
#include "tools/client/load_recorder.h"
#include "tools/client/wire_method.h"

namespace hilomoe {

struct LoadOptions {
  double rate = 0;         // requests a second of the open loop; 0: closed loop
  size_t concurrency = 1;  // of the closed loop
  // Of the open loop. A request whose time comes while so many are under way is sent later, its latency still counting
  // from its time; how often is reported.
  size_t max_in_flight = 10'000;
  absl::Duration warmup = absl::Seconds(1);  // not reported
  absl::Duration duration = absl::Seconds(10);
  absl::Duration deadline = absl::Seconds(1);  // from the time that latency counts from
  uint64_t seed = 1;                           // of the arrivals
};

// What was measured beside the records.
struct LoadRun {
  absl::Time start;
  int64_t begin_ns = 0, end_ns = 0;  // since the start: what of the run is reported
  size_t most_in_flight = 0;
  uint64_t held_back = 0;       // sent later than wanted because max_in_flight were under way
  LatencyHistogram send_delay;  // of the open loop: how much later than wanted requests were sent
  double cpu_seconds = 0;       // of this process
};

// The times of a run that starts now, and, when it is over, what it took.
LoadRun BeginRun(const LoadOptions& options);
void EndRun(LoadRun* run);

// Calls of one request each. Answers come in on one thread, and, in the open loop, the caller's sends. Round robin over
// the channels and the set.
class LoadGenerator {
 public:
  // At least one channel and one request; `requests` as RequestBytes gives them. The recorder outlives the generator.
  LoadGenerator(std::vector<std::shared_ptr<grpc::Channel>> channels, WireMethod method,
                std::vector<grpc::ByteBuffer> requests, const LoadOptions& options, LoadRecorder* recorder);
  ~LoadGenerator();

  // Once. Ends when every request sent has ended, the last one's deadline at the latest.
  LoadRun Run();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_CLIENT_LOAD_GENERATOR_H_
