// A model's first evaluations, before it has users.
#ifndef HILOMOE_SERVER_WARM_UP_H_
#define HILOMOE_SERVER_WARM_UP_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "runtime/predictor.h"

namespace hilomoe {

// Evaluates made-up requests of several sizes, without helpers, so that weights and code are in memory and caches; and
// grows the batches of `workspaces`, of which nothing is counted, to requests of kWarmUpCandidates, so that the first
// real ones of that size allocate nothing. Nobody else may use the workspaces meanwhile.
inline constexpr size_t kWarmUpCandidates = 1000;
absl::Status WarmUp(const Predictor& predictor, absl::Span<const std::unique_ptr<Workspace>> workspaces);

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_WARM_UP_H_
