// The load without a server: requests evaluated one after another on the caller's thread. What a server with one
// evaluation thread could give at most.
#ifndef HILOMOE_TOOLS_CLIENT_IN_PROCESS_LOAD_H_
#define HILOMOE_TOOLS_CLIENT_IN_PROCESS_LOAD_H_

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "hilomoe/v1/scoring_service.pb.h"
#include "tools/client/expected_scores.h"
#include "tools/client/load_generator.h"
#include "tools/client/load_recorder.h"

namespace hilomoe {

// Of the options, warm-up and duration count. A request's latency is that of Predictor::Predict: requests are parsed
// before.
absl::StatusOr<LoadRun> RunInProcess(const ModelVersionFile& file, absl::Span<const v1::ScoreRequest> requests,
                                     const LoadOptions& options, LoadRecorder* recorder);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_CLIENT_IN_PROCESS_LOAD_H_
