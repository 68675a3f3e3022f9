// The routing kernels, against the routing logits written out with Gram matrices and the reference's own softmax.
#include <cstdint>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/reference.h"
#include "runtime/aligned_vector.h"
#include "tools/bench/result_check.h"
#include "tools/bench/suite.h"

namespace hilomoe::bench {
namespace {

using kernels::Kernels;

constexpr int kLayers = 4, kExperts = 16, kStack = kLayers * kExperts;

struct RoutingOperands {
  RoutingOperands(int rows_, int top_k_)
      : rows(rows_), top_k(top_k_), kept(kLayers * (top_k_ > 0 ? top_k_ : kExperts)) {
    std::mt19937_64 engine(11);
    std::normal_distribution<float> normal;
    const auto fill = [&](AlignedVector<float>* numbers, size_t n, float mean, float deviation) {
      for (size_t i = 0; i < n; ++i) numbers->push_back(mean + deviation * normal(engine));
    };
    fill(&logit_scale, kLayers, 1, 0.1F);
    fill(&logit_offset, kStack, 0, 0.1F);
    fill(&gram, size_t{kStack} * kStack, 0, 0.3F);
    fill(&a, static_cast<size_t>(rows) * kStack, 0, 1);
    fill(&inverse_norm, static_cast<size_t>(rows), 1, 0.1F);
    gated.resize(static_cast<size_t>(rows) * static_cast<size_t>(kept));
    index.resize(gated.size());
    routing = {kLayers, kExperts, top_k, 0.9F, logit_scale.data(), logit_offset.data(), gram.data()};
  }
  void Run(const Kernels& kernels) {
    if (top_k > 0) {
      kernels.route_top_k(routing, rows, a.data(), nullptr, kStack, inverse_norm.data(), gated.data(), kept,
                          index.data(), kept, nullptr, 0);
    } else {
      kernels.route_dense(routing, rows, a.data(), nullptr, kStack, inverse_norm.data(), gated.data(), kept, nullptr,
                          0);
    }
  }
  absl::Status Verify(const Kernels& kernels) {
    Run(kernels);
    for (int r = 0; r < rows; ++r) {
      if (absl::Status status = VerifyRow(r); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

 private:
  absl::Status VerifyRow(int r) {
    const float* row_a = &a[static_cast<size_t>(r) * kStack];
    const size_t first = static_cast<size_t>(r) * static_cast<size_t>(kept);
    std::vector<Rounded> s(kStack), z(kExperts), expected;
    std::vector<float> got;
    for (int l = 0; l < kLayers; ++l) {
      for (int i = 0; i < kExperts; ++i) {
        const int at = l * kExperts + i;
        Rounded sum = Rounded(routing.query_scale) * Rounded(inverse_norm[r]) * Rounded(row_a[at]);
        for (int j = 0; j < l * kExperts; ++j)
          sum += s[j] * Rounded(gram[static_cast<size_t>(j) * kStack + static_cast<size_t>(at)]);
        z[i] = Rounded(logit_scale[l]) * sum + Rounded(logit_offset[at]);
      }
      const double gap = ReferenceScores(z, static_cast<size_t>(top_k), &s[l * kExperts]);
      if (gap <= Rounded::kDeviations) return absl::OkStatus();  // which one is kept is not decided by float32
      int place = l * (top_k > 0 ? top_k : kExperts);
      for (int at = l * kExperts; at < (l + 1) * kExperts; ++at) {
        if (top_k > 0 && s[at].value == 0) continue;
        if (top_k > 0 && index[first + place] != at) {
          return absl::DataLossError(absl::StrCat("row ", r, " keeps expert ", index[first + place], " for ", at));
        }
        expected.push_back(s[at] * Rounded(row_a[at]));
        got.push_back(gated[first + place++]);
      }
    }
    return CheckNumbers(absl::StrCat("gated, row ", r), got, expected);
  }

 public:
  int rows, top_k, kept;
  kernels::Routing routing{};
  AlignedVector<float> logit_scale, logit_offset, gram, a, inverse_norm, gated;
  AlignedVector<int32_t> index;
};

}  // namespace

void AddRoutingCases(const Suite&, std::vector<Case>* cases) {
  for (const Kernels* kernels : SupportedKernels(&Kernels::route_dense)) {
    for (const int rows : {1, 64}) {
      for (const int top_k : {0, 4}) {
        const int kept = top_k > 0 ? top_k : kExperts;
        Case c;
        c.group = "kernels";
        c.name = absl::StrCat(top_k > 0 ? "route_top_k" : "route_dense", ", rows ", rows);
        c.instruction_set = kernels->name;
        // The chain's multiply-adds; the exponentials count 0, as in model/flops.h.
        c.work.flops = 1.0 * rows * kLayers * (kLayers - 1) * kExperts * kept;
        // What is read: of the Gram matrix the columns of the layers before, and the logits.
        c.work.bytes = 4.0 * (kExperts * kExperts * kLayers * (kLayers - 1) / 2 + rows * kStack);
        c.prepare = [kernels, rows, top_k](int) -> absl::StatusOr<Operands> {
          const auto operands = std::make_shared<RoutingOperands>(rows, top_k);
          return Operands{[operands, kernels] { return operands->Verify(*kernels); },
                          [operands, kernels] { operands->Run(*kernels); }};
        };
        if (kernels->route_dense == kernels::SelectKernels().route_dense) {
          AddWarmAndFlushed(c, cases);
        } else {
          cases->push_back(c);
        }
      }
    }
  }
}

}  // namespace hilomoe::bench
