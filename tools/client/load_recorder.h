// What became of every request of a load run.
#ifndef HILOMOE_TOOLS_CLIENT_LOAD_RECORDER_H_
#define HILOMOE_TOOLS_CLIENT_LOAD_RECORDER_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

#include "absl/types/span.h"
#include "grpcpp/grpcpp.h"
#include "hilomoe/v1/scoring_service.pb.h"
#include "tools/client/expected_scores.h"
#include "tools/client/wire_method.h"

namespace hilomoe {

enum class Verdict : uint8_t {
  kUnchecked,
  kRight,
  kWrong,           // other scores than those of the version that the answer names, or other than so many
  kUnknownVersion,  // a version that there are no expectations for
  kUnreadable,
};

struct LoadRecord {
  int64_t start_ns = 0;    // since the run's start: when it was to be sent (open loop) or was sent (closed loop)
  int64_t latency_ns = 0;  // from then to its end
  uint64_t version = 0;
  uint32_t request = 0;  // of the set
  uint32_t predictor_ns = 0;
  uint8_t code = 0;  // grpc::StatusCode
  Verdict verdict = Verdict::kUnchecked;
  bool pushback = false;  // a refusal with grpc-retry-pushback-ms
};

// Threads: one at a time.
class LoadRecorder {
 public:
  // Both outlive the recorder; `expected` null: scores are not compared, but counted.
  LoadRecorder(WireMethod method, absl::Span<const v1::ScoreRequest> requests, const ExpectedScores* expected)
      : requests_(requests), expected_(expected), reader_(method) {}

  // Fills in the rest of a record whose times and request are set; `answer` is read when the status is OK.
  void Add(LoadRecord record, const grpc::Status& status, bool pushback, grpc::ByteBuffer* answer);
  void Add(LoadRecord record, const WireAnswer& answer);

  const std::deque<LoadRecord>& records() const { return records_; }  // in the order of their ends
  // Of the first request that did not end with OK, and of the first answer that is not right; empty: none.
  const std::string& first_failure() const { return first_failure_; }
  const std::string& first_wrong() const { return first_wrong_; }

 private:
  void AddFailure(LoadRecord record, grpc::StatusCode code, std::string_view message);
  Verdict Check(uint32_t request, const WireAnswer& answer);

  const absl::Span<const v1::ScoreRequest> requests_;
  const ExpectedScores* const expected_;
  AnswerReader reader_;
  std::deque<LoadRecord> records_;
  std::string first_failure_, first_wrong_;
};

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_CLIENT_LOAD_RECORDER_H_
