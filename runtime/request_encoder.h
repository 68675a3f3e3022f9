// Feature values -> rows of embedding tables and transformed numbers.
#ifndef HILOMOE_RUNTIME_REQUEST_ENCODER_H_
#define HILOMOE_RUNTIME_REQUEST_ENCODER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "model/encoded_batch.h"
#include "model/model_spec.h"
#include "model/tensor_registry.h"
#include "model/vocabulary.h"
#include "runtime/request_view.h"

namespace hilomoe {

// Counted per feature of the spec; the caller owns, adds up and resets.
struct EncodeCounts {
  std::vector<uint64_t> values;             // ids or numbers seen
  std::vector<uint64_t> out_of_vocabulary;  // of these, unknown ids
  std::vector<uint64_t> missing;            // rows without a value
  uint64_t unknown_features = 0;            // columns that the model does not know
};

// Encodes requests for one model. What it is made from must outlive it. Const methods: any thread, each with its own
// outputs; outputs are reused, so that a steady load allocates nothing.
class RequestEncoder {
 public:
  // Runs work(0) to work(tasks - 1), each once, all of them before it returns; in any order, on any threads.
  using RunTasks = absl::FunctionRef<void(size_t tasks, absl::FunctionRef<void(size_t task)> work)>;
  // On this thread, one after the other.
  static void RunInOrder(size_t tasks, absl::FunctionRef<void(size_t task)> work) {
    for (size_t task = 0; task < tasks; ++task) work(task);
  }
  // The column that a request has of a feature, if any, and what became of it; its own use of a caller's memory.
  struct FeatureColumn {
    const ColumnView* column = nullptr;
    bool of_context = false;
    absl::Status status;
  };

  // vocabularies: per table of the spec. numeric: the transforms' statistics (standardise, boundaries).
  RequestEncoder(const ModelSpec& spec, absl::Span<const Vocabulary> vocabularies,
                 const FeatureTensors<const float>& numeric);

  // Features as model_config.proto describes them -> encoded_batch.h. A CONTEXT feature among the candidates makes the
  // batch flat (context_rows = num_candidates), and context columns are then repeated; a CANDIDATE feature among the
  // context is refused. INVALID_ARGUMENT names the feature: wrong type, wrong number of rows, a number that is not
  // finite, a required feature that is absent, a feature that stands twice, sequences of different lengths side by
  // side. What does not belong in the request is found first, in its order; then what cannot be encoded, in the order
  // of the spec; lengths last. On an error the outputs hold nothing of use. `counts` may be null. A task of `run` is a
  // feature, candidates' first; a context of one row, whose features are small, is one task, the last, which calls
  // context_encoded when no feature has failed yet. Its features are not aligned with one another then, and those of
  // the candidates may be still to come.
  absl::Status Encode(const RequestView& request, EncodedBatch* batch, EncodeCounts* counts,
                      std::vector<FeatureColumn>* columns, RunTasks run,
                      absl::FunctionRef<void()> context_encoded) const;
  // The same on this thread alone, with an allocation.
  absl::Status Encode(const RequestView& request, EncodedBatch* batch, EncodeCounts* counts) const;

 private:
  // What a request without the feature gets, one row.
  EncodedFeature EncodeDefault(int feature) const;
  // Index of the column's feature; -1 when the model does not know it.
  int FindFeature(const ColumnView& column) const;
  // Finds every feature's column and how many rows the context has.
  absl::Status AssignColumns(const RequestView& request, EncodedBatch* batch, EncodeCounts* counts,
                             std::vector<FeatureColumn>* columns) const;
  // Starts to fetch what the first look-ups of all columns read: a column of one id has nothing to do meanwhile.
  void PrefetchFirstIds(absl::Span<const FeatureColumn> columns) const;
  absl::Status EncodeFeature(int feature, const FeatureColumn& found, EncodedBatch* batch, EncodeCounts* counts) const;
  absl::Status EncodeColumn(const ColumnView& column, int feature, size_t rows, EncodedFeature* out,
                            EncodeCounts* counts) const;
  absl::Status CheckType(const ColumnView& column, const FeatureSpec& feature, size_t rows, size_t* values) const;
  void EncodeIds(const ColumnView& column, int feature, size_t rows, EncodedFeature* out, EncodeCounts* counts) const;
  absl::Status EncodeNumbers(const ColumnView& column, int feature, size_t rows, EncodedFeature* out,
                             EncodeCounts* counts) const;
  // Gives sequences that stand side by side the same lengths: a row that one of them lacks altogether counts as missing
  // in every position.
  absl::Status Align(const AttentionSpec& attention, EncodedBatch* batch) const;
  absl::Status FillAbsent(int feature, size_t rows, EncodedFeature* out) const;
  float Transform(int feature, float number) const;
  uint32_t Bucket(int feature, float number) const;

  const ModelSpec& spec_;
  absl::Span<const Vocabulary> vocabularies_;
  FeatureTensors<const float> numeric_;
  std::vector<std::pair<uint32_t, int>> by_id_;            // sorted
  std::vector<std::pair<std::string_view, int>> by_name_;  // sorted
  std::vector<EncodedFeature> absent_;                     // one row per feature
  std::vector<int> order_;                                 // in which features are encoded, candidates' first
  size_t candidate_features_ = 0;
};

}  // namespace hilomoe

#endif  // HILOMOE_RUNTIME_REQUEST_ENCODER_H_
