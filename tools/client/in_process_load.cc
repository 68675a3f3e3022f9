#include "tools/client/in_process_load.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>
#include <vector>

#include "model/model_file.h"
#include "model/status_macros.h"
#include "runtime/column_view.h"
#include "runtime/predictor.h"

namespace hilomoe {

absl::StatusOr<LoadRun> RunInProcess(const ModelVersionFile& file, absl::Span<const v1::ScoreRequest> requests,
                                     const LoadOptions& options, LoadRecorder* recorder) {
  using Clock = std::chrono::steady_clock;
  HILOMOE_ASSIGN_OR_RETURN(ModelFile opened, ModelFile::Open(file.path));
  HILOMOE_ASSIGN_OR_RETURN(const std::unique_ptr<Predictor> predictor, Predictor::Create(std::move(opened)));
  Workspace workspace(*predictor);
  std::vector<std::vector<ColumnView>> context(requests.size()), candidates(requests.size());
  std::vector<float> scores;
  for (size_t i = 0; i < requests.size(); ++i) {
    AppendColumnViews(requests[i].context(), &context[i]);
    AppendColumnViews(requests[i].candidates(), &candidates[i]);
    scores.resize(std::max<size_t>(scores.size(), requests[i].num_candidates()));
  }

  LoadRun run = BeginRun(options);
  run.most_in_flight = 1;
  const Clock::time_point start = Clock::now();
  for (size_t i = 0;; i = (i + 1) % requests.size()) {
    LoadRecord record;
    record.request = static_cast<uint32_t>(i);
    record.start_ns = std::chrono::nanoseconds(Clock::now() - start).count();
    if (record.start_ns >= run.end_ns) break;
    const absl::Span<float> of(scores.data(), requests[i].num_candidates());
    PredictTimes times;
    HILOMOE_RETURN_IF_ERROR(predictor->Predict({of.size(), context[i], candidates[i]}, &workspace, of, &times));
    record.latency_ns = std::chrono::nanoseconds(Clock::now() - start).count() - record.start_ns;
    recorder->Add(record, {file.version, of, times.encode_ns + times.evaluate_ns});
  }
  EndRun(&run);
  return run;
}

}  // namespace hilomoe
