// How requests and answers look on the wire, by RPC method.
#ifndef HILOMOE_TOOLS_CLIENT_WIRE_METHOD_H_
#define HILOMOE_TOOLS_CLIENT_WIRE_METHOD_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/status.h"
#include "hilomoe/v1/scoring_service.pb.h"
#include "inference/grpc_inference_service.pb.h"
#include "model/model_spec.h"

namespace hilomoe {

enum class WireMethod { kScore, kScoreStream, kModelInfer };

// "Score", "ScoreStream", "ModelInfer"; INVALID_ARGUMENT lists the names.
absl::StatusOr<WireMethod> WireMethodOf(std::string_view name);
// "/hilomoe.v1.ScoringService/Score".
const char* MethodPath(WireMethod method);

grpc::ByteBuffer RequestBytes(WireMethod method, const v1::ScoreRequest& request, const ModelSpec& spec);

// What an answer says. Good until the reader's next one.
struct WireAnswer {
  uint64_t version = 0;
  absl::Span<const float> scores;
  uint64_t predictor_ns = 0;                     // encoding and evaluating, when the request asked for timings
  grpc::StatusCode code = grpc::StatusCode::OK;  // of the request, where a stream goes on after one that failed
  std::string_view message = {};
};

// Reads answers over and over in the same memory. One thread.
class AnswerReader {
 public:
  explicit AnswerReader(WireMethod method) : method_(method) {}
  // DATA_LOSS for bytes that are not an answer.
  absl::StatusOr<WireAnswer> Read(grpc::ByteBuffer* bytes);

 private:
  const WireMethod method_;
  v1::ScoreResponse score_;
  inference::ModelInferResponse infer_;
};

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_CLIENT_WIRE_METHOD_H_
