// A model file of some GiB, almost all of it embedding tables and vocabularies, to be loaded.
#ifndef HILOMOE_TOOLS_BENCH_LARGE_MODEL_H_
#define HILOMOE_TOOLS_BENCH_LARGE_MODEL_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/predictor.h"

namespace hilomoe::bench {

// 16 categorical features embedded 16 wide in float32, each with a vocabulary of as many ids as make the file `bytes`
// long, and one block of 64. The tables hold the same random numbers, so that writing takes little memory.
class LargeModel {
 public:
  // Written into a new directory under `scratch`, which goes with the object.
  static absl::StatusOr<std::unique_ptr<LargeModel>> Write(const std::string& scratch, size_t bytes);
  ~LargeModel();
  LargeModel(const LargeModel&) = delete;
  LargeModel& operator=(const LargeModel&) = delete;

  std::string path() const { return directory_ + "/model.hilomoe"; }
  uint32_t ids() const { return ids_; }  // of every feature
  // Scores of some ids of every feature.
  absl::StatusOr<std::vector<float>> Scores(const Predictor& predictor) const;

 private:
  LargeModel(std::string directory, uint32_t ids) : directory_(std::move(directory)), ids_(ids) {}
  absl::Status WriteFile() const;

  const std::string directory_;
  const uint32_t ids_;
};

}  // namespace hilomoe::bench

#endif  // HILOMOE_TOOLS_BENCH_LARGE_MODEL_H_
