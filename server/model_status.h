// What is told about models and their versions.
#ifndef HILOMOE_SERVER_MODEL_STATUS_H_
#define HILOMOE_SERVER_MODEL_STATUS_H_

#include <cstdint>
#include <string>
#include <vector>

namespace hilomoe {

enum class ModelState {
  kUnloaded,   // in the repository, but not to be served: policy or Unload say so
  kLoading,    // or waiting for its turn
  kAvailable,  // served
  kUnloading,  // not found by requests any more, but some are still under way
  kFailed,     // should be served and cannot be; tried again
};
inline constexpr int kModelStates = 5;
inline constexpr const char* kModelStateNames[kModelStates] = {"UNLOADED", "LOADING", "AVAILABLE", "UNLOADING",
                                                               "FAILED"};
inline const char* ModelStateName(ModelState state) { return kModelStateNames[static_cast<int>(state)]; }

// What is known about one version.
struct ModelStatus {
  std::string model = {};  // empty: about the repository itself, which then cannot be read
  uint64_t version = 0;    // 0: about the model as a whole: its directory or its policy cannot be read
  ModelState state = ModelState::kUnloaded;
  std::string reason = {};               // why it is in this state; of kAvailable: why it is not the newest file
  std::string public_reason = {};        // the same for who sends requests: no paths
  std::vector<std::string> labels = {};  // that lead to it now
  double since_seconds = 0;              // when it came into this state, since the epoch
  uint32_t failures = 0;                 // loads that failed, one after another

  friend bool operator==(const ModelStatus&, const ModelStatus&) = default;
};

// Of one model since the server was started.
struct ModelCounts {
  std::string model;
  uint64_t load_failures = 0;
  uint64_t breakages = 0;  // a mapped file was found changed

  friend bool operator==(const ModelCounts&, const ModelCounts&) = default;
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_MODEL_STATUS_H_
