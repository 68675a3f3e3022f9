// Look-up and gather of the candidates' embeddings, beside a plain loop over candidates and features.
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "runtime/input_gather.h"
#include "runtime/packed_product.h"
#include "tools/bench/result_check.h"
#include "tools/bench/suite.h"

namespace hilomoe::bench {
namespace {

constexpr size_t kCandidates = 1000;

enum class Way {
  kGather,           // encoded rows to x, as the predictor does it, in tiles
  kEncodeAndGather,  // ids to x, the same
  kPlainLoop,        // ids to x: for every candidate, for every feature, look up and copy
};

struct Gathering {
  explicit Gathering(const Predictor& predictor_)
      : predictor(predictor_),
        gather(predictor_.file().spec(), predictor_.file().tensors().features, predictor_.file().matrices().features,
               predictor_.kernels()),
        width(predictor_.file().spec().input_width()),
        x(kTileRows * width) {}

  // use(tile's first row, rows): after x holds the candidates' columns of these rows.
  template <class Use>
  void Run(Way way, const BenchRequest& request, Use use) {
    const EncodedBatch* encoded = &request.expected();
    if (way == Way::kEncodeAndGather) {
      (void)predictor.encoder().Encode(request.view(), &batch, nullptr, &columns, &RequestEncoder::RunInOrder, [] {});
      encoded = &batch;
    }
    for (size_t begin = 0; begin < kCandidates; begin += kTileRows) {
      const int rows = static_cast<int>(std::min<size_t>(kTileRows, kCandidates - begin));
      if (way == Way::kPlainLoop) {
        PlainLoop(request.view(), begin, rows);
      } else {
        gather.Prefetch(*encoded, false, begin, rows);
        gather.Features(*encoded, false, begin, rows, x.data());
      }
      use(begin, rows);
    }
  }
  void PlainLoop(const RequestView& request, size_t begin, int rows) {
    const ModelSpec& spec = predictor.file().spec();
    for (int r = 0; r < rows; ++r) {
      for (size_t column = 0; column < request.candidates.size(); ++column) {
        const FeatureSpec& feature = spec.features()[spec.features().size() - request.candidates.size() + column];
        const int64_t id = request.candidates[column].ids[begin + static_cast<size_t>(r)];
        const uint32_t row = predictor.file().vocabularies()[feature.table].Find(id);
        const std::byte* embedding = predictor.file().matrices().features.tables[feature.table]->row(row);
        std::memcpy(&x[static_cast<size_t>(r) * width + feature.input_offset], embedding,
                    feature.width * sizeof(float));
      }
    }
  }
  // Bit by bit against the tables, at the rows that the requests were made from.
  absl::Status Verify(Way way) {
    const ModelSpec& spec = predictor.file().spec();
    for (const auto& request : requests) {
      size_t wrong = 0;
      Run(way, *request, [&](size_t begin, int rows) {
        for (const FeatureSpec& feature : spec.features()) {
          if (feature.is_context()) continue;
          const EncodedFeature& expected = request->expected().features[spec.FindFeature(feature.id)];
          for (int r = 0; r < rows; ++r) {
            const std::byte* row = predictor.file().matrices().features.tables[feature.table]->row(
                expected.rows[begin + static_cast<size_t>(r)]);
            const float* got = &x[static_cast<size_t>(r) * width + feature.input_offset];
            wrong += std::memcmp(row, got, feature.width * sizeof(float)) != 0 ? 1 : 0;
          }
        }
      });
      if (wrong > 0) return absl::DataLossError(absl::StrCat(wrong, " embeddings are not their tables' rows"));
    }
    return absl::OkStatus();
  }

  const Predictor& predictor;
  const InputGather gather;
  const size_t width;
  std::vector<std::shared_ptr<const BenchRequest>> requests;
  EncodedBatch batch;
  std::vector<RequestEncoder::FeatureColumn> columns;
  std::vector<float> x;
  size_t next = 0;
};

}  // namespace

void AddGatherCases(Suite* suite, std::vector<Case>* cases) {
  for (const IdLaw law : {IdLaw::kZipf, IdLaw::kUniform}) {
    std::string plain;
    for (const Way way : {Way::kPlainLoop, Way::kEncodeAndGather, Way::kGather}) {
      const char* const names[] = {"gather", "look-up and gather", "plain loop"};
      Case c;
      c.group = "gather";
      c.name = absl::StrCat(names[static_cast<int>(way)], ", ", law == IdLaw::kZipf ? "Zipf" : "uniform", " ids, ",
                            kCandidates, " candidates");
      c.instruction_set = "portable";
      if (way == Way::kPlainLoop) plain = FullName(c);
      if (way == Way::kEncodeAndGather) c.compared_with.push_back(plain);
      const double values = kCandidates * kCategoricalFeatures / 2.0;
      // Per value the embedding's 64 bytes; with look-up, id and bucket as well. Ids that come again find theirs in a
      // cache.
      const double lines = way == Way::kGather ? 64 : 64 + 64, indices = way == Way::kGather ? 4 : 8;
      c.work.bytes = values * (indices + lines);
      // Uniform: 128 requests in turn read some 150 MiB of buckets and rows, more than the caches keep.
      const size_t requests = law == IdLaw::kUniform ? 128 : 8;
      const auto read_by = [&](size_t n) {
        const double distinct = DistinctIds(suite->options.ids, law, n * kCandidates);
        return static_cast<double>(n) * values * indices + kCategoricalFeatures / 2.0 * distinct * lines;
      };
      c.work.working_set = read_by(1);
      c.work.in_turn = read_by(requests);
      if (law == IdLaw::kUniform) c.work.random_reads = values * (way == Way::kGather ? 1 : 2);
      c.prepare = [suite, way, law, requests](int thread) -> absl::StatusOr<Operands> {
        HILOMOE_ASSIGN_OR_RETURN(BenchModel* const model, suite->models.Get({.ids = suite->options.ids}));
        HILOMOE_ASSIGN_OR_RETURN(const Predictor* const predictor, model->Open());
        const auto gathering = std::make_shared<Gathering>(*predictor);
        gathering->requests = MakeRequests(*model, {kCandidates, false, law}, requests, static_cast<uint64_t>(thread));
        return Operands{[gathering, way] { return gathering->Verify(way); },
                        [gathering, way] {
                          const auto& requests = gathering->requests;
                          gathering->Run(way, *requests[gathering->next++ % requests.size()], [](size_t, int) {});
                        }};
      };
      AddWarmAndFlushed(c, cases);
    }
  }
}

}  // namespace hilomoe::bench
