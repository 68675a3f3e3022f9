// Evaluates a model: encoded rows in, probabilities out.
#ifndef HILOMOE_RUNTIME_PREDICTOR_H_
#define HILOMOE_RUNTIME_PREDICTOR_H_

#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/encoded_batch.h"
#include "model/model_file.h"
#include "runtime/kernels/kernels.h"
#include "runtime/request_encoder.h"
#include "runtime/request_view.h"

namespace hilomoe {

struct PredictorOptions {
  kernels::InstructionSet instruction_set = kernels::InstructionSet::kAvx512Bf16;  // at most this one
};

// Wall time of the two steps of a call.
struct PredictTimes {
  uint64_t encode_ns = 0;
  uint64_t evaluate_ns = 0;
};

class Predictor;

// The buffers of one evaluating thread for one predictor. Sized for tiles of rows, whatever the requests; the encoded
// batch grows to the largest request and stays. Not thread-safe; one call at a time.
class Workspace {
 public:
  explicit Workspace(const Predictor& predictor);
  ~Workspace();

  EncodedBatch batch;
  EncodeCounts counts;  // added to by every Predict

 private:
  friend class Predictor;
  struct Buffers;
  std::unique_ptr<Buffers> buffers_;
};

// A model ready to be evaluated. Immutable after Create; Predict may run on any number of threads, each with a
// Workspace of its own. The same request gives the same bits on the same machine, whatever the thread or the load.
class Predictor {
 public:
  // Packs the weights.
  static absl::StatusOr<std::unique_ptr<Predictor>> Create(ModelFile file, const PredictorOptions& options = {});
  ~Predictor();

  // scores: num_candidates probabilities. Errors as RequestEncoder::Encode. `times` may be null.
  absl::Status Predict(const RequestView& request, Workspace* workspace, absl::Span<float> scores,
                       PredictTimes* times = nullptr) const;

  // The step after encoding: logits of the batch's candidate rows. Negative zero and infinities pass; no NaN arises
  // from finite weights.
  void Evaluate(const EncodedBatch& batch, Workspace* workspace, absl::Span<float> logits) const;

  // Replays the golden rows stored in the file: DATA_LOSS naming the row when a score is off by more than the file's
  // golden_tolerance.
  absl::Status CheckGolden() const;

  const ModelFile& file() const;
  const RequestEncoder& encoder() const;
  const kernels::Kernels& kernels() const;

 private:
  friend class Workspace;
  struct State;
  explicit Predictor(std::unique_ptr<State> state);
  void EvaluateContext(const EncodedBatch& batch, size_t begin, int rows, Workspace::Buffers* buffers) const;
  void EvaluateTile(const EncodedBatch& batch, size_t begin, int rows, int context_step, Workspace::Buffers* buffers,
                    float* logits) const;

  std::unique_ptr<State> state_;
};

}  // namespace hilomoe

#endif  // HILOMOE_RUNTIME_PREDICTOR_H_
