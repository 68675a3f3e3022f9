// Small model files with seeded random weights, and requests for them.
#ifndef HILOMOE_TESTS_SERVER_TEST_MODEL_H_
#define HILOMOE_TESTS_SERVER_TEST_MODEL_H_

#include <cstdint>
#include <string>
#include <vector>

#include "hilomoe/v1/model_config.pb.h"
#include "hilomoe/v1/scoring_service.pb.h"
#include "runtime/predictor.h"

namespace hilomoe {

// Every kind of feature, dense and top-k routing.
v1::ModelConfig TestModelConfig();
// One feature, `item`, and wide blocks: takes about 10 us a candidate.
v1::ModelConfig SlowModelConfig();

struct TestModelOptions {
  v1::ModelConfig config = TestModelConfig();
  std::string model = "ctr";
  uint64_t version = 1;
  uint32_t seed = 1;
  bool wrong_golden = false;  // a golden row that the model does not give
};

// What the file says about its routing in training; of utilisation it says that all experts are used evenly.
inline constexpr float kTestEntropy = 0.875F;

// Writes <root>/<model>/<version>/model.hilomoe and returns its path. Ids 100 to 139 of `item` and 1 to 20 of `user`
// are in the vocabulary.
std::string WriteTestModel(const std::string& root, const TestModelOptions& options = {});

// For TestModelConfig: all features, some ids unknown, some values missing.
v1::ScoreRequest MakeTestRequest(uint32_t num_candidates, uint32_t seed);
// For SlowModelConfig.
v1::ScoreRequest MakeSlowRequest(uint32_t num_candidates);

// What the model in `path` gives for `request`, without a server.
std::vector<float> DirectScores(const std::string& path, const v1::ScoreRequest& request);

// A directory that goes with the object.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace hilomoe

#endif  // HILOMOE_TESTS_SERVER_TEST_MODEL_H_
