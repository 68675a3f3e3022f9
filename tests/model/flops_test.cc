// Counts by hand, by the rules of model/flops.h.
#include "model/flops.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/model/random_model.h"

namespace hilomoe {
namespace {

// A context feature 3 wide and a candidate feature 2 wide: D = 5.
constexpr char kFive[] = R"(
  features { id: 1 name: "a" kind: CATEGORICAL scope: CONTEXT id_type: INT64 embedding_width: 3 }
  features { id: 2 name: "b" kind: CATEGORICAL scope: CANDIDATE id_type: INT64 embedding_width: 2 }
)";

Flops Count(const std::string& blocks) {
  return CountFlops(SpecFromText(absl::StrCat(kFive, "network {", blocks, "}")));
}

TEST(FlopsTest, HeadAlone) {
  const Flops flops = Count("");
  EXPECT_EQ(flops.row, 10);
  EXPECT_EQ(flops.dense_row, 10);
  EXPECT_EQ(flops.request, 0);
  EXPECT_EQ(flops.candidate, 10);
}

TEST(FlopsTest, DenseLayers) {
  const Flops flops = Count("blocks { width: 7 } blocks { width: 4 }");
  EXPECT_EQ(flops.row, 2 * 5 * 7 + 2 * 7 * 4 + 2 * 4);
  EXPECT_EQ(flops.dense_row, flops.row);
  EXPECT_EQ(flops.request, 2 * 3 * 7);
  EXPECT_EQ(flops.candidate, 2 * 2 * 7 + 2 * 7 * 4 + 2 * 4);
}

TEST(FlopsTest, DenseExperts) {
  const Flops flops = Count("blocks { width: 7 experts { layers: 3 experts_per_layer: 4 } }");
  // base, experts 2 L K (D + O), routing L (L - 1) K^2, head
  EXPECT_EQ(flops.row, 70 + 2 * 12 * (5 + 7) + 3 * 2 * 16 + 14);
  EXPECT_EQ(flops.dense_row, 70 + 14);
  EXPECT_EQ(flops.request, 2 * 3 * (7 + 12));
  EXPECT_EQ(flops.candidate, flops.row - flops.request);
}

TEST(FlopsTest, TopKExperts) {
  const Flops flops = Count("blocks { width: 7 experts { layers: 3 experts_per_layer: 4 top_k: 2 } }");
  // base, 2 L K D + 2 L k O, routing L (L - 1) k K, head
  EXPECT_EQ(flops.row, 70 + 2 * 12 * 5 + 2 * 6 * 7 + 3 * 2 * 2 * 4 + 14);
  EXPECT_EQ(flops.request, 2 * 3 * (7 + 12));
}

TEST(FlopsTest, ProjectedQuery) {
  const Flops flops = Count("blocks { width: 7 experts { layers: 3 experts_per_layer: 4 query_projection: LINEAR } }");
  EXPECT_EQ(flops.row, 70 + 2 * 12 * (5 + 7) + 2 * 12 * 5 + 3 * 2 * 16 + 14);
}

TEST(FlopsTest, LayersSideBySideCostNoChain) {
  const Flops flops = Count("blocks { width: 7 experts { layers: 3 experts_per_layer: 4 hierarchical: false } }");
  EXPECT_EQ(flops.row, 70 + 2 * 12 * 5 + 2 * 12 * 7 + 14);
}

TEST(FlopsTest, CrossTower) {
  const Flops flops = Count("cross { experts { layers: 1 experts_per_layer: 4 } } cross { } blocks { width: 7 }");
  // two layers of 5 x 5 with x0 * y + x, experts, the deep block, the head over both
  EXPECT_EQ(flops.row, 2 * (50 + 10) + 2 * 4 * 10 + 70 + 2 * 12);
  EXPECT_EQ(flops.dense_row, 2 * (50 + 10) + 70 + 2 * 12);
  EXPECT_EQ(flops.request, 2 * 3 * (5 + 4) + 2 * 3 * 7);  // both towers' first layers read x itself
}

TEST(FlopsTest, Attention) {
  const ModelSpec spec = SpecFromText(
      absl::StrCat(kFive,
                   "features { id: 3 name: 'h' kind: SEQUENCE scope: CONTEXT id_type: INT64 embedding_width: 4 "
                   "max_length: 10 pooling: NONE }"
                   "network { attention { query: 'b' history: 'h' heads: 3 head_width: 8 output_width: 6 } }"));
  // per head: query 2 * 4 * 2, scores and pooling 2 * 2 * 4 * 10, output 2 * 4 * 6; then the head over 5 + 6
  EXPECT_EQ(CountFlops(spec).row, 3 * (16 + 160 + 48) + 22);
  EXPECT_EQ(CountFlops(spec).candidate, CountFlops(spec).row);
}

TEST(FlopsTest, KeepingAllIsDense) {
  EXPECT_EQ(Count("blocks { width: 7 experts { layers: 3 experts_per_layer: 4 top_k: 4 } }").row,
            Count("blocks { width: 7 experts { layers: 3 experts_per_layer: 4 } }").row);
}

// 13 numbers and 26 categories, all 16 wide; numbers and 13 categories are the context's; three blocks of 400 with
// L = 4, K = 16.
TEST(FlopsTest, BenchModel) {
  std::string text;
  for (int i = 1; i <= 39; ++i) {
    const std::string scope = i <= 26 ? "CONTEXT" : "CANDIDATE";
    const std::string kind = i <= 13 ? "NUMERIC" : "CATEGORICAL id_type: INT64";
    absl::StrAppend(&text, "features { id: ", i, " name: 'f", i, "' kind: ", kind, " scope: ", scope,
                    " embedding_width: 16 }\n");
  }
  absl::StrAppend(&text, "network {");
  for (int i = 0; i < 3; ++i)
    absl::StrAppend(&text, "blocks { width: 400 experts { layers: 4 experts_per_layer: 16 } }");
  const Flops flops = CountFlops(SpecFromText(text + "}"));
  EXPECT_EQ(flops.row, 1'485'088);        // 1.48 MFLOP
  EXPECT_EQ(flops.request, 386'048);      // 0.39
  EXPECT_EQ(flops.candidate, 1'099'040);  // 1.10
  EXPECT_EQ(flops.dense_row, 2 * 624 * 400 + 2 * (2 * 400 * 400) + 800);
  EXPECT_EQ(FlopsText(flops),
            "row 1,485,088 (without experts 1,140,000, +30.3 %), compute-once: request 386,048, candidate 1,099,040");
}

}  // namespace
}  // namespace hilomoe
