// Sends scoring requests over one channel, several at a time, and hands the answers back in the order of sending.
//
//   ScorePipeline pipeline(channel, options);
//   while (more) {
//     ... fill pipeline.Next()->request ...
//     pipeline.Send();
//     while (const auto* exchange = pipeline.Full() ? pipeline.Await() : pipeline.Poll()) ... use it ...
//   }
//   while (const auto* exchange = pipeline.Await()) ... use it ...
//
// Exchanges stand in a ring of max_in_flight slots whose messages are reused; an exchange keeps its slot until it is
// received. UNAVAILABLE and RESOURCE_EXHAUSTED are tried again, after a wait that doubles from first_backoff up to
// longest_backoff, times a random factor in [0.5, 1.5).
//
// Threads: the public methods belong to one thread. Another one, of the pipeline's own, drives the network, so that
// answers are read and timed in time while the caller waits for its input.
#ifndef HILOMOE_TOOLS_CLIENT_SCORE_PIPELINE_H_
#define HILOMOE_TOOLS_CLIENT_SCORE_PIPELINE_H_

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "absl/random/random.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/alarm.h"
#include "grpcpp/grpcpp.h"
#include "hilomoe/v1/scoring_service.grpc.pb.h"

namespace hilomoe {

class ScorePipeline {
 public:
  struct Options {
    size_t max_in_flight = 16;
    absl::Duration deadline = absl::Seconds(1);  // of one attempt
    int retries = 3;                             // after the first attempt
    absl::Duration first_backoff = absl::Milliseconds(100);
    absl::Duration longest_backoff = absl::Seconds(5);
  };
  struct Exchange {
    size_t slot = 0;  // < max_in_flight; for what the caller keeps beside it
    v1::ScoreRequest request;
    v1::ScoreResponse response;
    absl::Status status;  // of the last attempt
    int attempts = 0;
    std::chrono::nanoseconds latency = {};  // from the first attempt's start to the last one's end
  };

  ScorePipeline(const std::shared_ptr<grpc::ChannelInterface>& channel, const Options& options);
  // Cancels what is under way.
  ~ScorePipeline();
  ScorePipeline(const ScorePipeline&) = delete;
  ScorePipeline& operator=(const ScorePipeline&) = delete;

  // Whether every slot is taken: receive before the next one is filled.
  bool Full() const { return sent_ - received_ == calls_.size(); }
  // The exchange to fill and to send next. Not when Full().
  Exchange* Next();
  void Send();

  // The oldest exchange not received, if it has ended, else null. Await waits until it has; null when none is out. What
  // they return is valid until the next call of Next().
  const Exchange* Poll();
  const Exchange* Await();

 private:
  using Clock = std::chrono::steady_clock;
  enum class State { kIdle, kCalling, kBackingOff, kEnded };
  struct Call : Exchange {
    State state = State::kIdle;
    Clock::time_point started;
    std::optional<grpc::ClientContext> context;
    std::unique_ptr<grpc::ClientAsyncResponseReader<v1::ScoreResponse>> reader;
    grpc::Status grpc_status;
    grpc::Alarm alarm;
  };

  void Start(Call* call);  // with mutex_ held
  void DriveNetwork();
  void HandleEvent(Call* call, Clock::time_point now);  // with mutex_ held
  absl::Duration Backoff(int attempts);

  const Options options_;
  const std::unique_ptr<v1::ScoringService::Stub> stub_;
  grpc::CompletionQueue queue_;
  uint64_t sent_ = 0;
  uint64_t received_ = 0;

  // Guards the state of every call and what follows; a call's other fields belong to whom its state says.
  std::mutex mutex_;
  std::condition_variable call_ended_;
  std::vector<Call> calls_;
  size_t under_way_ = 0;
  bool stopping_ = false;
  absl::BitGen random_;  // the network thread's
  std::thread network_;  // last, so that it starts when all else is there
};

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_CLIENT_SCORE_PIPELINE_H_
