// Which versions of a model are served.
#ifndef HILOMOE_SERVER_MODEL_POLICY_H_
#define HILOMOE_SERVER_MODEL_POLICY_H_

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hilomoe/v1/server_config.pb.h"

namespace hilomoe {

// Letters, digits, '_', '-' and '.', at least one: what names of models and labels are made of, which become values of
// metrics and parts of messages.
bool IsModelName(std::string_view name);

// What the ranges of the schema do not say: latest or named versions, no label twice, labels of named versions only.
// Errors are FieldErrors relative to the policy.
absl::Status ValidateModelPolicy(const v1::ModelPolicy& policy);

// Those of ServerConfig: each as above and for another model.
absl::Status ValidateModelPolicies(const v1::ServerConfig& config);

// The text of a policy.textproto; errors name `path` and line. INVALID_ARGUMENT also for a text that sets nothing: it
// is likely to be a file that is being written.
absl::StatusOr<v1::ModelPolicy> ParseModelPolicy(std::string_view text, const std::string& path);

struct VersionChoice {
  std::set<uint64_t> serve;  // a version that is named need not be there
  // serve, and those that would be served if they had not failed: to be tried again.
  std::set<uint64_t> attempt;
};

// present: the versions in the repository. failed: whether one of them could not be loaded so far. Latest N are the N
// newest that have not failed, and the newest that have where there are not enough of these.
VersionChoice ChooseVersions(const v1::ModelPolicy& policy, const std::set<uint64_t>& present,
                             const std::function<bool(uint64_t)>& failed);

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_MODEL_POLICY_H_
