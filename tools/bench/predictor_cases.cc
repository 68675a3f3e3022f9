// The whole predictor: requests in, probabilities out.
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/flops.h"
#include "model/status_macros.h"
#include "runtime/packed_product.h"
#include "runtime/tile_team.h"
#include "tools/bench/result_check.h"
#include "tools/bench/suite.h"

namespace hilomoe::bench {
namespace {

// On threads: one request on all of them. Requests of more than a tile are split, so that also what is gained at the
// server's least (split_candidates) is measured.
struct Prediction {
  Prediction(const Predictor& predictor_, std::unique_ptr<TileTeam> team_, uint32_t routing_sample)
      : predictor(predictor_),
        team(std::move(team_)),
        statistics(predictor.file().spec(), routing_sample),
        helpers(predictor, team.get(), kTileRows + 1, &statistics) {}

  absl::Status Verify(BenchModel* model) {
    constexpr int kTries = 1000;  // a helper may wake up too late
    for (int i = 0; i < kTries && team->helpers() > 0 && workspace.split_requests == 0; ++i) Run();
    if (team->helpers() > 0 && workspace.split_requests == 0) return absl::DataLossError("no helper has helped");
    for (size_t i = 0; i < requests.size(); ++i) {
      HILOMOE_RETURN_IF_ERROR(predictor.Predict(requests[i]->view(), &workspace, absl::MakeSpan(scores)));
      HILOMOE_RETURN_IF_ERROR(CheckScores(model, *requests[i], scores, i));
      if (i == 0) HILOMOE_RETURN_IF_ERROR(CheckSplits(*model, predictor, *requests[i], scores));
    }
    return absl::OkStatus();
  }
  void Run() {
    (void)predictor.Predict(requests[next++ % requests.size()]->view(), &workspace, absl::MakeSpan(scores));
  }

  const Predictor& predictor;
  const std::unique_ptr<TileTeam> team;
  RoutingStatistics statistics;
  const PredictorHelpers helpers;
  Workspace workspace{predictor, &helpers, &statistics};
  std::vector<std::shared_ptr<const BenchRequest>> requests;
  std::vector<float> scores;
  size_t next = 0;
};

struct PredictorCase {
  size_t candidates;
  int top_k;
  bool flat;
  const kernels::Kernels* kernels;
  Precision precision = Precision::kFloat32;
  int threads_together = 1;
  uint32_t routing_sample = 0;  // routing is counted on one tile of so many; 0 = none
};

Case MakeCase(Suite* suite, const PredictorCase& what) {
  Case c;
  const BenchModelOptions options{.ids = suite->options.ids, .top_k = what.top_k, .precision = what.precision};
  c.group = "predictor";
  c.name = absl::StrCat(what.top_k > 0 ? "top_k 4" : "dense", ", ", what.candidates, " candidates, ",
                        what.flat ? "flat rows" : "compute-once");
  if (what.precision != Precision::kFloat32) absl::StrAppend(&c.name, ", ", PrecisionName(what.precision));
  if (what.routing_sample > 0) absl::StrAppend(&c.name, ", routing counted, 1 in ", what.routing_sample);
  c.instruction_set = what.kernels->name;
  c.threads = what.threads_together;
  c.together = what.threads_together > 1;
  const double n = static_cast<double>(what.candidates);
  const Flops flops = BenchFlops(options);
  c.work.precision = PrecisionName(what.precision);  // of all but routing and the head
  c.work.flops = what.flat ? n * static_cast<double>(flops.row)
                           : static_cast<double>(flops.request) + n * static_cast<double>(flops.candidate);
  c.work.bytes = BenchDenseBytes(options);
  if (what.top_k > 0 && what.candidates == 1) {  // of U the rows that are kept
    const ModelSpec spec = BenchSpec(options);
    for (const BlockSpec& block : spec.blocks()) {
      c.work.bytes -= 4.0 * static_cast<double>(block.layers * (block.experts - block.top_k) * block.width);
    }
  }
  c.prepare = [suite, what, options](int thread) -> absl::StatusOr<Operands> {
    HILOMOE_ASSIGN_OR_RETURN(BenchModel* const model, suite->models.Get(options));
    HILOMOE_ASSIGN_OR_RETURN(const Predictor* const predictor, model->Open(what.kernels->instruction_set));
    HILOMOE_ASSIGN_OR_RETURN(std::unique_ptr<TileTeam> team, TileTeam::Create(what.threads_together));
    const auto prediction = std::make_shared<Prediction>(*predictor, std::move(team), what.routing_sample);
    prediction->requests =
        MakeRequests(*model, {what.candidates, what.flat, IdLaw::kZipf}, 8, static_cast<uint64_t>(thread));
    prediction->scores.resize(what.candidates);
    return Operands{[prediction, model] { return prediction->Verify(model); }, [prediction] { prediction->Run(); }};
  };
  return c;
}

}  // namespace

void AddPredictorCases(Suite* suite, std::vector<Case>* cases) {
  const kernels::Kernels* const best = &kernels::SelectKernels();
  for (const int top_k : {0, 4}) {
    for (const size_t candidates : {1, 10, 100, 1000}) {
      for (const bool flat : {true, false}) {
        Case c = MakeCase(suite, {candidates, top_k, flat, best});
        if (!flat) c.compared_with.push_back(FullName(MakeCase(suite, {candidates, top_k, true, best})));
        if (top_k > 0) c.compared_with.push_back(FullName(MakeCase(suite, {candidates, 0, flat, best})));
        AddWarmAndFlushed(c, cases);
        if (suite->options.threads > 1) {
          c.compared_with = {FullName(c)};
          c.threads = suite->options.threads;
          cases->push_back(c);
        }
      }
    }
  }
  for (const size_t candidates : {1, 10, 100, 1000}) {
    for (const Precision precision : {Precision::kBfloat16, Precision::kInt8}) {
      Case c = MakeCase(suite, {candidates, 0, false, best, precision});
      c.compared_with.push_back(FullName(MakeCase(suite, {candidates, 0, false, best})));
      AddWarmAndFlushed(c, cases);
    }
  }
  // What it costs to count routing as the server does, and on every tile.
  for (const Precision precision : {Precision::kFloat32, Precision::kInt8}) {
    for (const uint32_t sample : {32, 1}) {
      Case c = MakeCase(suite, {1000, 0, false, best, precision, 1, sample});
      c.compared_with.push_back(FullName(MakeCase(suite, {1000, 0, false, best, precision})));
      cases->push_back(c);
    }
  }
  // 128: the least that a server splits unless it is told otherwise.
  for (const size_t candidates : {size_t{2 * kTileRows}, size_t{1000}}) {
    if (suite->options.threads == 1) break;
    for (const auto& [top_k, precision] : {std::pair(0, Precision::kFloat32),
                                           {4, Precision::kFloat32},
                                           {0, Precision::kBfloat16},
                                           {0, Precision::kInt8}}) {
      Case c = MakeCase(suite, {candidates, top_k, false, best, precision, suite->options.threads});
      const Case alone = MakeCase(suite, {candidates, top_k, false, best, precision});
      if (candidates != 1000) cases->push_back(alone);
      c.compared_with.push_back(FullName(alone));
      cases->push_back(c);
    }
  }
  for (const kernels::Kernels* kernels : SupportedKernels(&kernels::Kernels::route_dense)) {
    if (kernels->route_dense == best->route_dense) continue;
    for (const bool flat : {true, false}) {
      Case c = MakeCase(suite, {100, 0, flat, kernels});
      c.compared_with.push_back(FullName(MakeCase(suite, {100, 0, flat, best})));
      cases->push_back(c);
    }
  }
}

void AddLoadCases(Suite* suite, std::vector<Case>* cases) {
  Case c;
  c.group = "load";
  c.name = "model file, warm page cache, checksums verified";
  c.instruction_set = "portable";
  const BenchModelOptions options{.ids = suite->options.ids};
  // Per id: the embedding and, at 70 % of five places, its share of a bucket of 64 bytes.
  c.work.bytes = kCategoricalFeatures * static_cast<double>(options.ids) * (64 + 64 / 3.5);
  c.prepare = [suite, options](int) -> absl::StatusOr<Operands> {
    HILOMOE_ASSIGN_OR_RETURN(BenchModel* const model, suite->models.Get(options));
    Operands operands;
    operands.run = [model] { (void)ModelFile::Open(model->path()); };
    operands.verify = [model]() -> absl::Status {
      HILOMOE_ASSIGN_OR_RETURN(const ModelFile file, ModelFile::Open(model->path()));
      if (file.table_rows().size() == kCategoricalFeatures) return absl::OkStatus();
      return absl::DataLossError("the file lacks tables");
    };
    return operands;
  };
  cases->push_back(c);
}

}  // namespace hilomoe::bench
