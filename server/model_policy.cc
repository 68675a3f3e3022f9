#include "server/model_policy.h"

#include <algorithm>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "model/text_proto.h"
#include "server/validate_config.h"

namespace hilomoe {

bool IsModelName(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-' || c == '.';
  });
}

absl::Status ValidateModelPolicy(const v1::ModelPolicy& policy) {
  if (policy.has_latest_versions() && policy.versions_size() > 0) {
    return FieldError("latest_versions", "cannot be given beside versions");
  }
  std::set<uint64_t> versions;
  for (int i = 0; i < policy.versions_size(); ++i) {
    if (!versions.insert(policy.versions(i)).second) {
      return FieldError(absl::StrCat("versions[", i, "]"), absl::StrCat(policy.versions(i), " stands there twice"));
    }
  }
  std::set<std::string> labels;
  for (int i = 0; i < policy.labels_size(); ++i) {
    const v1::ModelPolicy::Label& label = policy.labels(i);
    const std::string field = absl::StrCat("labels[", i, "]");
    if (!IsModelName(label.name())) {
      return FieldError(absl::StrCat(field, ".name"),
                        absl::StrCat("'", label.name(), "' is not made of letters, digits, '_', '-' and '.'"));
    }
    if (!labels.insert(label.name()).second) {
      return FieldError(absl::StrCat(field, ".name"), absl::StrCat("'", label.name(), "' stands there twice"));
    }
    if (!label.has_version()) return FieldError(absl::StrCat(field, ".version"), "is not set");
    if (!versions.empty() && versions.count(label.version()) == 0) {
      return FieldError(absl::StrCat(field, ".version"), absl::StrCat(label.version(), " is not among versions"));
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateModelPolicies(const v1::ServerConfig& config) {
  std::set<std::string> names;
  for (int i = 0; i < config.models_size(); ++i) {
    const v1::ModelPolicy& policy = config.models(i);
    const std::string field = absl::StrCat("models[", i, "]");
    if (!IsModelName(policy.name())) {
      return FieldError(absl::StrCat(field, ".name"),
                        absl::StrCat("'", policy.name(), "' is not made of letters, digits, '_', '-' and '.'"));
    }
    if (!names.insert(policy.name()).second) {
      return FieldError(absl::StrCat(field, ".name"), absl::StrCat("'", policy.name(), "' stands there twice"));
    }
    HILOMOE_RETURN_IF_ERROR(InField(field, ValidateModelPolicy(policy)));
  }
  if (config.load_retry_max_ms() < config.load_retry_min_ms()) {
    return FieldError("load_retry_max_ms", "must not be less than load_retry_min_ms");
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::ModelPolicy> ParseModelPolicy(std::string_view text, const std::string& path) {
  v1::ModelPolicy policy;
  HILOMOE_RETURN_IF_ERROR(ParseTextProto(text, path, &policy, [&policy] {
    HILOMOE_RETURN_IF_ERROR(ValidateRanges(policy));
    if (policy.has_name()) return FieldError("name", "the folder names the model");
    return ValidateModelPolicy(policy);
  }));
  if (policy.ByteSizeLong() == 0) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": sets nothing; remove the file for the server's default"));
  }
  return policy;
}

VersionChoice ChooseVersions(const v1::ModelPolicy& policy, const std::set<uint64_t>& present,
                             const std::function<bool(uint64_t)>& failed) {
  VersionChoice choice;
  choice.serve.insert(policy.versions().begin(), policy.versions().end());
  if (policy.versions_size() == 0) {
    std::vector<uint64_t> by_preference(present.rbegin(), present.rend());
    std::stable_partition(by_preference.begin(), by_preference.end(), [&failed](uint64_t v) { return !failed(v); });
    by_preference.resize(std::min<size_t>(by_preference.size(), policy.latest_versions()));
    choice.serve.insert(by_preference.begin(), by_preference.end());
    for (const uint64_t version : present) {
      if (!choice.serve.empty() && version > *choice.serve.begin() && failed(version)) choice.attempt.insert(version);
    }
  }
  for (const v1::ModelPolicy::Label& label : policy.labels()) choice.serve.insert(label.version());
  choice.attempt.insert(choice.serve.begin(), choice.serve.end());
  return choice;
}

}  // namespace hilomoe
