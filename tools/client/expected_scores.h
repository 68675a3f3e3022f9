// What each version of a model must answer to each request of a set, bit for bit: computed from the model files,
// without a server. The same machine gives the same bits.
#ifndef HILOMOE_TOOLS_CLIENT_EXPECTED_SCORES_H_
#define HILOMOE_TOOLS_CLIENT_EXPECTED_SCORES_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "hilomoe/v1/scoring_service.pb.h"

namespace hilomoe {

struct ModelVersionFile {
  uint64_t version = 0;
  std::string path;
};
// The files <directory>/<version>/model.hilomoe, by version. NOT_FOUND when there is none.
absl::StatusOr<std::vector<ModelVersionFile>> ListModelVersions(const std::string& directory);

// Immutable; any thread.
class ExpectedScores {
 public:
  // Opens one file after another; links to the same file are opened once. Errors name the file and the request.
  static absl::StatusOr<ExpectedScores> Compute(const std::vector<ModelVersionFile>& files,
                                                absl::Span<const v1::ScoreRequest> requests);

  // Null for a version that no file was given for.
  const std::vector<float>* Find(uint64_t version, size_t request) const;

 private:
  using ScoresOfRequests = std::vector<std::vector<float>>;
  std::map<uint64_t, std::shared_ptr<const ScoresOfRequests>> versions_;
};

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_CLIENT_EXPECTED_SCORES_H_
