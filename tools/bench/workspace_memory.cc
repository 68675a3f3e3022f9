#include "tools/bench/workspace_memory.h"

#include <malloc.h>

#include <vector>

#include "model/status_macros.h"
#include "tools/bench/bench_request.h"

namespace hilomoe::bench {
namespace {

double AllocatedBytes() {
  const struct mallinfo2 info = ::mallinfo2();
  return static_cast<double>(info.uordblks + info.hblkhd);
}

}  // namespace

absl::StatusOr<MemoryUse> MeasureMemory(BenchModel* model) {
  constexpr size_t kCandidates = 1000;
  HILOMOE_ASSIGN_OR_RETURN(const Predictor* const predictor, model->Open());
  const BenchRequest flat(*model, {kCandidates, true, IdLaw::kZipf}, 1);
  const BenchRequest once(*model, {kCandidates, false, IdLaw::kZipf}, 1);
  std::vector<float> scores(kCandidates);
  const double before = AllocatedBytes();
  Workspace workspace(*predictor);
  for (const BenchRequest* request : {&flat, &once}) {
    HILOMOE_RETURN_IF_ERROR(predictor->Predict(request->view(), &workspace, absl::MakeSpan(scores)));
  }
  return MemoryUse{static_cast<double>(predictor->file().bytes()), AllocatedBytes() - before};
}

}  // namespace hilomoe::bench
