// What GetModel answers.
#ifndef HILOMOE_SERVER_MODEL_DESCRIPTION_H_
#define HILOMOE_SERVER_MODEL_DESCRIPTION_H_

#include "absl/status/status.h"
#include "hilomoe/v1/scoring_service.pb.h"
#include "server/model_repository.h"

namespace hilomoe {

// The version that the request names, and the state of all versions of the model. A model of which the repository
// knows versions but serves none is described by these alone, unless the request asks for one. Errors as
// ModelTable::Find. Any thread.
absl::Status DescribeModel(const ModelRepository& repository, const v1::GetModelRequest& request,
                           v1::GetModelResponse* response);

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_MODEL_DESCRIPTION_H_
