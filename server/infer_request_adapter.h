// ModelInferRequest bytes of the Open Inference Protocol v2 -> RequestView; scores -> ModelInferResponse. How a model's
// features are tensors stands in proto/inference/grpc_inference_service.proto.
#ifndef HILOMOE_SERVER_INFER_REQUEST_ADAPTER_H_
#define HILOMOE_SERVER_INFER_REQUEST_ADAPTER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "google/protobuf/io/zero_copy_stream.h"
#include "inference/grpc_inference_service.pb.h"
#include "model/model_spec.h"
#include "runtime/request_view.h"
#include "server/infer_request_reader.h"
#include "server/infer_tensor.h"
#include "server/wire_protocol.h"

namespace hilomoe {

// A model_version of the protocol: empty, a version's digits, or a label. INVALID_ARGUMENT for 0, for more than a
// uint64 holds, and for overlong ones.
struct VersionOrLabel {
  uint64_t version = 0;  // 0: not said
  std::string_view label;
};
absl::Status ParseModelVersion(std::string_view text, VersionOrLabel* version);

// Reads requests without message objects: what a request makes this class hold is bounded by eight times its bytes and
// 1 MiB.
class InferRequestAdapter : public WireProtocol {
 public:
  // Errors as InferRequestReader::Read. num_candidates is an upper bound of what Parse will find for any model: the
  // greatest number of rows among all tensors.
  absl::Status ReadHead(google::protobuf::io::ZeroCopyInputStream* bytes, RequestHead* head) override;

  // Errors as ReadHead, and INVALID_ARGUMENT that names the tensor for shapes that do not fit the contents or each
  // other, wrong datatypes, and lengths without values.
  // N are the rows of the CANDIDATE features' tensors, which must agree; without any the greatest number of rows in the
  // request. A CONTEXT feature of N > 1 rows is flat, as among ScoreRequest's candidates. A tensor `x.lengths` beside a
  // tensor `x` always belongs to it.
  absl::Status Parse(google::protobuf::io::ZeroCopyInputStream* bytes, const ModelSpec& spec) override;
  const RequestView& view() const override { return view_; }

  // Raw if the request was.
  absl::Span<float> StartResponse() override;
  const inference::ModelInferResponse& FinishResponse(const ServedModel& model, const ScoreTimes& times) override;

  void Recycle() override;
  size_t kept_bytes() const;  // the answer's, eight for each candidate, not counted

 private:
  // Where a feature's values lie in values_, whose vectors move while they grow.
  struct Place {
    int feature = -1;
    bool is_context = false;  // among the view's context
    size_t ids = 0, numbers = 0, strings = 0, string_bytes = 0, row_lengths = 0;
  };

  uint64_t GreatestRows() const;
  absl::Status CountRows(const ModelSpec& spec, InferInput* input) const;
  absl::Status CountCandidates(const ModelSpec& spec, size_t* candidates) const;
  absl::Status AppendFeature(const ModelSpec& spec, const InferInput& input, size_t candidates);
  void MakeView(const ModelSpec& spec, size_t candidates);

  InferRequestReader request_;
  InferValues values_;
  std::vector<Place> places_;
  size_t unknown_ = 0;
  std::vector<ColumnView> context_, candidates_;
  RequestView view_;
  bool answer_raw_ = false;
  std::string id_;
  std::vector<float> scores_;
  inference::ModelInferResponse response_;
  std::unique_ptr<inference::InferTensorContents> contents_;  // of the last response that had typed ones
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_INFER_REQUEST_ADAPTER_H_
