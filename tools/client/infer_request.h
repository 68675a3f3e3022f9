// Native requests as the Open Inference Protocol v2 has them.
#ifndef HILOMOE_TOOLS_CLIENT_INFER_REQUEST_H_
#define HILOMOE_TOOLS_CLIENT_INFER_REQUEST_H_

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "hilomoe/v1/scoring_service.pb.h"
#include "inference/grpc_inference_service.pb.h"
#include "model/model_spec.h"

namespace hilomoe {

// One tensor for each column, named as its feature, and one of lengths where rows have them; contents raw. Columns name
// their features by id; what the spec does not know is left out.
inference::ModelInferRequest MakeInferRequest(const v1::ScoreRequest& request, const ModelSpec& spec);

// The numbers of the one output, typed or raw, from the response's memory; empty when they are not that.
absl::Span<const float> ScoresOf(const inference::ModelInferResponse& response);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_CLIENT_INFER_REQUEST_H_
