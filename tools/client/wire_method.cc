#include "tools/client/wire_method.h"

#include "absl/strings/str_cat.h"
#include "grpcpp/grpcpp.h"
#include "grpcpp/impl/codegen/proto_utils.h"

namespace hilomoe {

absl::StatusOr<WireMethod> WireMethodOf(std::string_view name) {
  if (name == "Score") return WireMethod::kScore;
  if (name == "ScoreStream") return WireMethod::kScoreStream;
  return absl::InvalidArgumentError(
      absl::StrCat("'", absl::string_view(name.data(), name.size()), "' is not a method: Score, ScoreStream"));
}

const char* MethodPath(WireMethod method) {
  switch (method) {
    case WireMethod::kScore:
      break;
    case WireMethod::kScoreStream:
      return "/hilomoe.v1.ScoringService/ScoreStream";
  }
  return "/hilomoe.v1.ScoringService/Score";
}

grpc::ByteBuffer RequestBytes(WireMethod, const v1::ScoreRequest& request) {
  grpc::ByteBuffer bytes;
  bool own = false;
  // Cannot fail for a message under 2 GiB; what it gives else, the server refuses.
  (void)grpc::SerializationTraits<google::protobuf::Message>::Serialize(request, &bytes, &own);
  return bytes;
}

absl::StatusOr<WireAnswer> AnswerReader::Read(grpc::ByteBuffer* bytes) {
  if (!grpc::SerializationTraits<v1::ScoreResponse>::Deserialize(bytes, &score_).ok()) {
    return absl::DataLossError("the answer's bytes are not a hilomoe.v1.ScoreResponse");
  }
  WireAnswer answer;
  answer.version = score_.version();
  answer.scores = score_.scores();
  answer.predictor_ns = score_.timings().encode_ns() + score_.timings().evaluate_ns();
  answer.code = static_cast<grpc::StatusCode>(score_.code());
  answer.message = score_.message();
  return answer;
}

}  // namespace hilomoe
