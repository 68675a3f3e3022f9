#include "tools/client/wire_method.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "grpcpp/grpcpp.h"
#include "grpcpp/impl/codegen/proto_utils.h"
#include "tools/client/infer_request.h"

namespace hilomoe {

absl::StatusOr<WireMethod> WireMethodOf(std::string_view name) {
  if (name == "Score") return WireMethod::kScore;
  if (name == "ScoreStream") return WireMethod::kScoreStream;
  if (name == "ModelInfer") return WireMethod::kModelInfer;
  return absl::InvalidArgumentError(absl::StrCat("'", absl::string_view(name.data(), name.size()),
                                                 "' is not a method: Score, ScoreStream, ModelInfer"));
}

const char* MethodPath(WireMethod method) {
  switch (method) {
    case WireMethod::kScore:
      break;
    case WireMethod::kScoreStream:
      return "/hilomoe.v1.ScoringService/ScoreStream";
    case WireMethod::kModelInfer:
      return "/inference.GRPCInferenceService/ModelInfer";
  }
  return "/hilomoe.v1.ScoringService/Score";
}

grpc::ByteBuffer RequestBytes(WireMethod method, const v1::ScoreRequest& request, const ModelSpec& spec) {
  // Cannot fail for a message under 2 GiB; what it gives else, the server refuses.
  const auto serialize = [](const google::protobuf::Message& message) {
    grpc::ByteBuffer bytes;
    bool own = false;
    (void)grpc::SerializationTraits<google::protobuf::Message>::Serialize(message, &bytes, &own);
    return bytes;
  };
  return method == WireMethod::kModelInfer ? serialize(MakeInferRequest(request, spec)) : serialize(request);
}

absl::StatusOr<WireAnswer> AnswerReader::Read(grpc::ByteBuffer* bytes) {
  WireAnswer answer;
  if (method_ == WireMethod::kModelInfer) {
    if (!grpc::SerializationTraits<inference::ModelInferResponse>::Deserialize(bytes, &infer_).ok() ||
        !absl::SimpleAtoi(infer_.model_version(), &answer.version)) {
      return absl::DataLossError("the answer's bytes are not an inference.ModelInferResponse");
    }
    answer.scores = ScoresOf(infer_);
    return answer;
  }
  if (!grpc::SerializationTraits<v1::ScoreResponse>::Deserialize(bytes, &score_).ok()) {
    return absl::DataLossError("the answer's bytes are not a hilomoe.v1.ScoreResponse");
  }
  answer.version = score_.version();
  answer.scores = score_.scores();
  answer.predictor_ns = score_.timings().encode_ns() + score_.timings().evaluate_ns();
  answer.code = static_cast<grpc::StatusCode>(score_.code());
  answer.message = score_.message();
  return answer;
}

}  // namespace hilomoe
