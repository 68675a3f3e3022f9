// Requests of the Open Inference Protocol v2 that say what a native request says.
#ifndef HILOMOE_TESTS_SERVER_INFER_REQUEST_H_
#define HILOMOE_TESTS_SERVER_INFER_REQUEST_H_

#include <cstdint>
#include <string>
#include <vector>

#include "hilomoe/v1/model_config.pb.h"
#include "hilomoe/v1/scoring_service.pb.h"
#include "inference/grpc_inference_service.pb.h"

namespace hilomoe {

// A tensor per column, of the datatype that ModelMetadata tells, with lengths where the column has them.
inference::ModelInferRequest MakeInferRequest(const v1::ScoreRequest& request, const v1::ModelConfig& config, bool raw);

// An input without contents.
inference::ModelInferRequest::InferInputTensor* AddInput(const std::string& name, const std::string& datatype,
                                                         const std::vector<int64_t>& shape,
                                                         inference::ModelInferRequest* request);

// Values one after another, as raw contents hold them.
template <typename T>
std::string RawBytes(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}
std::string RawStrings(const std::vector<std::string>& values);

}  // namespace hilomoe

#endif  // HILOMOE_TESTS_SERVER_INFER_REQUEST_H_
