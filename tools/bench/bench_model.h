// The model that everything is compared on, drawn from a seed, folded and written to a model file as the converter does
// it, and opened as the server does.
//
// 13 numeric and 26 categorical features, all embedded 16 wide (D = 624); CONTEXT: the numeric and 13 categorical ones;
// CANDIDATE: the other 13. Three blocks of 400 with batch norm, ReLU and L layers of K experts with U != 0. Logits have
// unit deviation, as calibration leaves them.
#ifndef HILOMOE_TOOLS_BENCH_BENCH_MODEL_H_
#define HILOMOE_TOOLS_BENCH_BENCH_MODEL_H_

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/flops.h"
#include "model/model_spec.h"
#include "model/reference.h"
#include "model/stored_matrix.h"
#include "model/tensor_registry.h"
#include "runtime/predictor.h"

namespace hilomoe::bench {

inline constexpr int kNumericFeatures = 13;
inline constexpr int kCategoricalFeatures = 26;  // the first half of them CONTEXT

struct BenchModelOptions {
  uint32_t ids = 200'000;  // of every categorical feature
  int layers = 4;
  int experts = 16;
  int top_k = 0;
  Precision precision = Precision::kFloat32;  // of tables, blocks and experts alike
  uint64_t seed = 20'251'010;                 // of the weights

  bool operator<(const BenchModelOptions& other) const {
    return std::tie(ids, layers, experts, top_k, precision, seed) <
           std::tie(other.ids, other.layers, other.experts, other.top_k, other.precision, other.seed);
  }
};

// The id of a categorical feature (0-based) that has row `rank` + kReservedRows of its table. All ids differ.
int64_t IdOf(int feature, uint32_t rank);

// What follows from the options alone, without making the model.
ModelSpec BenchSpec(const BenchModelOptions& options);
Flops BenchFlops(const BenchModelOptions& options);
double BenchDenseBytes(const BenchModelOptions& options);  // of all served tensors but the tables of ids, as packed
// Of a number of a packed weight.
double PackedBytes(Precision precision);

// Writes the model's file where it is to stay; atomically, as WriteModelFile.
absl::Status WriteBenchModel(const BenchModelOptions& options, const std::string& path);

class BenchModel {
 public:
  static absl::StatusOr<std::unique_ptr<BenchModel>> Create(const BenchModelOptions& options);
  ~BenchModel();
  BenchModel(const BenchModel&) = delete;
  BenchModel& operator=(const BenchModel&) = delete;

  // Opened at the first call for each instruction set; any thread.
  absl::StatusOr<const Predictor*> Open(kernels::InstructionSet limit = kernels::InstructionSet::kAvx512Bf16);

  // The plain reference's output for some candidate rows of a batch, with the errors that a right evaluation may have:
  // of float32 arithmetic, and of rounding the weights and the inputs of products to fewer bits. Embeddings are taken
  // as they are stored.
  ReferenceOutput<Rounded> Reference(const EncodedBatch& batch, absl::Span<const size_t> rows);
  // All trained tensors but the tables of ids; unrounded, with the variance of what is rounded when they are stored.
  const ModelTensors<const Rounded>& reference_tensors() const { return reference_tensors_; }

  const BenchModelOptions& options() const { return options_; }
  const ModelSpec& spec() const { return spec_; }
  std::string path() const { return directory_ + "/model.hilomoe"; }

 private:
  friend absl::Status WriteBenchModel(const BenchModelOptions& options, const std::string& path);
  explicit BenchModel(const BenchModelOptions& options) : options_(options), spec_(BenchSpec(options)) {}
  absl::Status Write(const std::string& path);

  const BenchModelOptions options_;
  const ModelSpec spec_;
  std::string directory_;       // temporary; empty: none
  std::vector<Rounded> dense_;  // the trained tensors behind the tables of ids
  ModelTensors<const Rounded> reference_tensors_;
  std::mutex mutex_;
  std::map<kernels::InstructionSet, std::unique_ptr<Predictor>> predictors_;
};

// Bench models by their options, made when first asked for. Any thread.
class BenchModels {
 public:
  absl::StatusOr<BenchModel*> Get(const BenchModelOptions& options);

 private:
  std::mutex mutex_;
  std::map<BenchModelOptions, std::unique_ptr<BenchModel>> models_;
};

}  // namespace hilomoe::bench

#endif  // HILOMOE_TOOLS_BENCH_BENCH_MODEL_H_
