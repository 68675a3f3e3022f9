// Evaluates a model: encoded rows in, probabilities out.
#ifndef HILOMOE_RUNTIME_PREDICTOR_H_
#define HILOMOE_RUNTIME_PREDICTOR_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/encoded_batch.h"
#include "model/model_file.h"
#include "runtime/kernels/kernels.h"
#include "runtime/request_encoder.h"
#include "runtime/request_view.h"
#include "runtime/routing_statistics.h"
#include "runtime/tile_team.h"

namespace hilomoe {

struct PredictorOptions {
  kernels::InstructionSet instruction_set = kernels::InstructionSet::kAvx512Bf16;  // at most this one
};

// Wall time of the two steps of a call. Of a request that is split, a shared context (but for attention's
// history) is evaluated in the first one.
struct PredictTimes {
  uint64_t encode_ns = 0;
  uint64_t evaluate_ns = 0;
};

class Predictor;
class PredictorHelpers;

// The buffers of one evaluating thread for one predictor. Sized for tiles of rows, whatever the requests; the encoded
// batch grows to the largest request and stays. Not thread-safe; one call at a time.
class Workspace {
 public:
  // helpers: who may help with the requests of this workspace; null: nobody. statistics: of the predictor's model,
  // where its routing is counted; null: nowhere. Both outlive the workspace.
  explicit Workspace(const Predictor& predictor, const PredictorHelpers* helpers = nullptr,
                     RoutingStatistics* statistics = nullptr);
  ~Workspace();

  EncodedBatch batch;
  EncodeCounts counts;          // added to by every Predict
  uint64_t split_requests = 0;  // added to by every Predict and Evaluate: those that helpers evaluated tiles of

 private:
  friend class Predictor;
  struct Buffers;
  const PredictorHelpers* const helpers_;
  std::vector<RequestEncoder::FeatureColumn> columns_;
  std::unique_ptr<Buffers> buffers_;
};

// A team's helpers at work for one predictor: which requests are split, and a workspace for each helper. Shared by the
// callers' workspaces.
class PredictorHelpers {
 public:
  // Requests of at least so many candidates are split over the callers and `team`, which outlives this; 0, or a team
  // without helpers: none.
  // statistics: as of a Workspace.
  PredictorHelpers(const Predictor& predictor, TileTeam* team, size_t split_candidates,
                   RoutingStatistics* statistics = nullptr);

 private:
  friend class Predictor;
  bool Split(size_t candidates) const {
    return !workspaces_.empty() && split_candidates_ > 0 && candidates >= split_candidates_;
  }

  TileTeam* const team_;
  const size_t split_candidates_;
  std::vector<std::unique_ptr<Workspace>> workspaces_;
};

// A model ready to be evaluated. Immutable after Create; Predict may run on any number of threads, each with a
// Workspace of its own. The same request gives the same bits on the same machine, whatever the thread, the load or the
// helpers that were free.
class Predictor {
 public:
  // Packs the weights.
  static absl::StatusOr<std::unique_ptr<Predictor>> Create(ModelFile file, const PredictorOptions& options = {});
  ~Predictor();

  // scores: num_candidates probabilities. Errors as RequestEncoder::Encode, and INVALID_ARGUMENT for numbers so large
  // that the model overflows to NaN. `times` may be null. `abandoned`, asked before every tile, on the helpers' threads
  // too: true ends the evaluation with CANCELLED.
  absl::Status Predict(
      const RequestView& request, Workspace* workspace, absl::Span<float> scores, PredictTimes* times = nullptr,
      absl::FunctionRef<bool()> abandoned = [] { return false; }) const;

  // The step after encoding: logits of the batch's candidate rows. Negative zero and infinities pass; a NaN arises
  // where products overflow.
  void Evaluate(const EncodedBatch& batch, Workspace* workspace, absl::Span<float> logits) const;

  // Replays the golden rows stored in the file: DATA_LOSS naming the row when a score is off by more than the file's
  // golden_tolerance.
  absl::Status CheckGolden() const;

  const ModelFile& file() const;
  // Of the model's file, copied or mapped, and of the packed copies of its weights; workspaces are not counted.
  size_t bytes() const;
  const RequestEncoder& encoder() const;
  const kernels::Kernels& kernels() const;

 private:
  friend class Workspace;
  struct State;
  explicit Predictor(std::unique_ptr<State> state);
  void EvaluateContext(const EncodedBatch& batch, size_t begin, int rows, Workspace::Buffers* buffers) const;
  // False: abandoned. context_evaluated: EvaluateContext has run for the one row of a shared context, into the
  // workspace's buffers. finish: of every tile's logits, on the thread that has evaluated it.
  bool EvaluateUnless(absl::FunctionRef<bool()> abandoned, bool context_evaluated, const EncodedBatch& batch,
                      Workspace* workspace, absl::Span<float> logits,
                      absl::FunctionRef<void(absl::Span<float>)> finish) const;
  struct Tile;
  void EvaluateTile(const EncodedBatch& batch, const Tile& tile, Workspace::Buffers* buffers, float* logits) const;

  std::unique_ptr<State> state_;
};

}  // namespace hilomoe

#endif  // HILOMOE_RUNTIME_PREDICTOR_H_
