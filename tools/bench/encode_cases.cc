// Request encoding: ids to rows, through the vocabularies of the model file.
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "tools/bench/result_check.h"
#include "tools/bench/suite.h"

namespace hilomoe::bench {
namespace {

// Requests in turn. With uniform ids their buckets must not all fit the caches: of 1,000 candidates they are 40 MiB.
size_t RequestCount(const BenchRequestOptions& options) { return options.law == IdLaw::kUniform ? 128 : 8; }

struct Encoding {
  absl::Status Verify() {
    for (const auto& request : requests) {
      HILOMOE_RETURN_IF_ERROR(predictor->encoder().Encode(request->view(), &batch, nullptr));
      HILOMOE_RETURN_IF_ERROR(CheckEncoded(*request, batch));
    }
    return absl::OkStatus();
  }
  void Run() {
    (void)predictor->encoder().Encode(requests[next++ % requests.size()]->view(), &batch, nullptr, &columns,
                                      &RequestEncoder::RunInOrder, [] {});
  }

  const Predictor* predictor;
  std::vector<std::shared_ptr<const BenchRequest>> requests;
  EncodedBatch batch;
  std::vector<RequestEncoder::FeatureColumn> columns;
  size_t next = 0;
};

}  // namespace

void AddEncodeCases(Suite* suite, std::vector<Case>* cases) {
  for (const IdLaw law : {IdLaw::kZipf, IdLaw::kUniform}) {
    for (const size_t candidates : {1, 100, 1000}) {
      for (const bool flat : {false, true}) {
        if (flat && candidates == 1) continue;
        if (law == IdLaw::kUniform && (flat || candidates < 1000)) continue;
        const BenchRequestOptions options{candidates, flat, law};
        Case c;
        c.group = "encode";
        c.name = absl::StrCat(law == IdLaw::kZipf ? "Zipf" : "uniform", " ids, ", candidates, " candidates",
                              flat ? ", flat rows" : "");
        c.instruction_set = "portable";
        const double ids = kCategoricalFeatures / 2 * (flat ? 2.0 * candidates : 1.0 + candidates);
        // The id and its bucket of 64 bytes; ids that come again, in other requests too, find theirs in a cache.
        c.work.bytes = ids * (8 + 64);
        const size_t requests = RequestCount(options);
        const auto read_by = [&](size_t n) {
          const double distinct =
              DistinctIds(suite->options.ids, law, n * candidates) + DistinctIds(suite->options.ids, law, n);
          return static_cast<double>(n) * ids * 8 + kCategoricalFeatures / 2 * distinct * 64;
        };
        c.work.working_set = read_by(1);
        c.work.in_turn = read_by(requests);
        if (law == IdLaw::kUniform) c.work.random_reads = ids;
        c.prepare = [suite, options, requests](int thread) -> absl::StatusOr<Operands> {
          HILOMOE_ASSIGN_OR_RETURN(BenchModel* const model, suite->models.Get({.ids = suite->options.ids}));
          const auto encoding = std::make_shared<Encoding>();
          HILOMOE_ASSIGN_OR_RETURN(encoding->predictor, model->Open());
          encoding->requests = MakeRequests(*model, options, requests, static_cast<uint64_t>(thread));
          return Operands{[encoding] { return encoding->Verify(); }, [encoding] { encoding->Run(); }};
        };
        AddWarmAndFlushed(c, cases);
      }
    }
  }
}

}  // namespace hilomoe::bench
