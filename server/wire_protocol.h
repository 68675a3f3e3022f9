// A wire format of scoring requests, as the scoring path sees it.
#ifndef HILOMOE_SERVER_WIRE_PROTOCOL_H_
#define HILOMOE_SERVER_WIRE_PROTOCOL_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "google/protobuf/io/zero_copy_stream.h"
#include "google/protobuf/message.h"
#include "runtime/request_view.h"
#include "server/model_repository.h"

namespace hilomoe {

// What admission has to know about a request; the values that a full parse would give, num_candidates at least.
struct RequestHead {
  std::string model;
  uint64_t version = 0;  // 0 = the label's, or the newest
  std::string label;
  uint32_t num_candidates = 0;
};

// How long the steps of an evaluation took.
struct ScoreTimes {
  uint64_t decode_ns = 0;
  uint64_t encode_ns = 0;
  uint64_t evaluate_ns = 0;
};

// Reads requests and writes responses of one format, over and over in the same memory. One thread. For each request
// ReadHead; for those that are admitted, maybe later and with other heads in between, Parse, StartResponse,
// FinishResponse; Recycle at the end, whatever came before.
class WireProtocol {
 public:
  virtual ~WireProtocol() = default;

  // Reads the head without parsing values, so that refusing costs little; bounds what parsing will cost.
  // INVALID_ARGUMENT for what is no request.
  virtual absl::Status ReadHead(google::protobuf::io::ZeroCopyInputStream* bytes, RequestHead* head) = 0;
  // INVALID_ARGUMENT naming what is wrong.
  virtual absl::Status Parse(google::protobuf::io::ZeroCopyInputStream* bytes, const ModelSpec& spec) = 0;
  // Of the request that was parsed last; valid until the next Parse or Recycle.
  virtual const RequestView& view() const = 0;

  // Room for the scores, view().num_candidates.
  virtual absl::Span<float> StartResponse() = 0;
  // The scores are there. Valid until the next StartResponse.
  virtual const google::protobuf::Message& FinishResponse(const ServedModel& model, const ScoreTimes& times) = 0;

  // Tells of an error in place of a response, where the protocol's streams can; else null. Valid until the next
  // StartResponse.
  virtual const google::protobuf::Message* FailureResponse(const absl::Status&) { return nullptr; }

  // To be called when the request is done with. Memory is kept for the next one, up to kMaxKeptBytes.
  static constexpr size_t kMaxKeptBytes = 4 << 20;
  virtual void Recycle() = 0;
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_WIRE_PROTOCOL_H_
