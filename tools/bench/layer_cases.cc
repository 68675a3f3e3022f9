// Latency against L and against K: all layers at once, and the same model layer by layer.
#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/flops.h"
#include "model/status_macros.h"
#include "tools/bench/layer_by_layer.h"
#include "tools/bench/result_check.h"
#include "tools/bench/suite.h"

namespace hilomoe::bench {
namespace {

constexpr size_t kCandidates = 100;
constexpr uint32_t kIds = 2'000;  // of a feature: what is compared is behind the look-up

struct Evaluation {
  Evaluation(const Predictor& predictor_) : predictor(predictor_), workspace(predictor_), scores(kCandidates) {}

  // Encoded rows in, probabilities out.
  void Run(const EncodedBatch& batch) {
    if (layers != nullptr) {
      layers->Evaluate(batch, absl::MakeSpan(scores));
      return;
    }
    predictor.Evaluate(batch, &workspace, absl::MakeSpan(scores));
    for (float& score : scores) score = static_cast<float>(1 / (1 + std::exp(-static_cast<double>(score))));
  }
  absl::Status Verify(BenchModel* model) {
    for (size_t i = 0; i < requests.size(); ++i) {
      Run(requests[i]->expected());
      HILOMOE_RETURN_IF_ERROR(CheckScores(model, *requests[i], scores, i));
    }
    return absl::OkStatus();
  }

  const Predictor& predictor;
  Workspace workspace;
  std::unique_ptr<LayerByLayer> layers;
  std::vector<std::shared_ptr<const BenchRequest>> requests;
  std::vector<float> scores;
  size_t next = 0;
};

Case MakeCase(Suite* suite, const BenchModelOptions& options, bool at_once) {
  Case c;
  c.group = "layers";
  c.name = absl::StrCat("L ", options.layers, ", K ", options.experts, options.top_k > 0 ? ", top_k 4, " : ", ",
                        at_once ? "at once, " : "layer by layer, ", kCandidates, " flat rows");
  c.instruction_set = kernels::SelectKernels().name;
  c.work.flops =
      kCandidates * (at_once ? static_cast<double>(BenchFlops(options).row) : LayerByLayerFlops(BenchSpec(options)));
  if (at_once) c.work.bytes = BenchDenseBytes(options);  // layer by layer reads V twice and no Gram matrices
  c.prepare = [suite, options, at_once](int thread) -> absl::StatusOr<Operands> {
    HILOMOE_ASSIGN_OR_RETURN(BenchModel* const model, suite->models.Get(options));
    HILOMOE_ASSIGN_OR_RETURN(const Predictor* const predictor, model->Open());
    const auto evaluation = std::make_shared<Evaluation>(*predictor);
    if (!at_once) evaluation->layers = std::make_unique<LayerByLayer>(*predictor);
    evaluation->requests = MakeRequests(*model, {kCandidates, true, IdLaw::kZipf}, 8, static_cast<uint64_t>(thread));
    return Operands{[evaluation, model] { return evaluation->Verify(model); },
                    [evaluation] {
                      const auto& requests = evaluation->requests;
                      evaluation->Run(requests[evaluation->next++ % requests.size()]->expected());
                    }};
  };
  return c;
}

}  // namespace

void AddLayerCases(Suite* suite, std::vector<Case>* cases) {
  const auto add = [&](int layers, int experts, int top_k, const BenchModelOptions& smallest) {
    const BenchModelOptions options{kIds, layers, experts, top_k};
    for (const bool at_once : {false, true}) {
      Case c = MakeCase(suite, options, at_once);
      if (at_once) c.compared_with.push_back(FullName(MakeCase(suite, options, false)));
      const std::string first = FullName(MakeCase(suite, smallest, at_once));
      if (first != FullName(c)) c.compared_with.push_back(first);
      cases->push_back(c);
    }
  };
  for (const int layers : {1, 2, 4, 8}) add(layers, 16, 0, {kIds, 1, 16, 0});
  for (const int experts : {4, 8, 32, 64}) add(4, experts, 0, {kIds, 4, 4, 0});
  for (const int layers : {1, 4, 8}) add(layers, 16, 4, {kIds, 1, 16, 4});
}

}  // namespace hilomoe::bench
