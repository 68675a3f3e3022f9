// The served evaluation against the plain reference in double.
//
// Bound: the reference runs on Rounded, which carries the standard deviation of the float32 rounding errors of the
// same expressions (model/rounding.h); 10 deviations are allowed, every instruction set, split and shape alike.
#include "runtime/predictor.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/runtime/request_columns.h"
#include "tests/runtime/served_model.h"

namespace hilomoe {
namespace {

using kernels::InstructionSet;
using testing::HasSubstr;

struct Case {
  std::string name;
  std::string features;
  std::string network;
  size_t most_rows = 130;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

constexpr char kOneContext[] = R"(
  features { id: 1 name: "a" kind: CATEGORICAL scope: CONTEXT id_type: INT64 embedding_width: 9 }
  features { id: 2 name: "b" kind: SEQUENCE scope: CONTEXT id_type: INT64 share_embedding: "a" }
)";
constexpr char kOneCandidate[] = R"(
  features { id: 1 name: "a" kind: CATEGORICAL scope: CANDIDATE id_type: STRING embedding_width: 9 }
  features { id: 2 name: "b" kind: NUMERIC scope: CANDIDATE embedding_width: 3 }
)";
// Widths around the vectors' and tiles' sizes.
constexpr char kWide[] = R"(
  features { id: 1 name: "a" kind: CATEGORICAL scope: CONTEXT id_type: INT64 embedding_width: 33 }
  features { id: 2 name: "b" kind: CATEGORICAL scope: CANDIDATE id_type: INT64 embedding_width: 31 }
)";
constexpr char kTwoBlocks[] =
    "blocks { width: 17 experts { layers: 3 experts_per_layer: 5 } }"
    "blocks { width: 9 experts { layers: 2 experts_per_layer: 4 } }";

const std::string kAllAttended = std::string(kAllFeatures) + kAlignedSequences;

std::vector<Case> Cases() {
  return {
      {"no_blocks", kAllFeatures, ""},
      {"dense_layers", kAllFeatures, "blocks { width: 17 } blocks { width: 9 }"},
      {"dense_routing", kAllFeatures, kTwoBlocks, 1000},
      {"top_k", kAllFeatures,
       "blocks { width: 17 experts { layers: 3 experts_per_layer: 5 top_k: 2 } }"
       "blocks { width: 9 experts { layers: 2 experts_per_layer: 20 top_k: 3 } }"},
      {"no_batch_norm", kAllFeatures,
       "blocks { width: 17 batch_norm: false experts { layers: 2 experts_per_layer: 4 } }"
       "blocks { width: 9 batch_norm: false }"},
      {"raw_query", kAllFeatures,
       "blocks { width: 17 experts { layers: 2 experts_per_layer: 4 query_norm: NONE } }"
       "blocks { width: 9 experts { layers: 2 experts_per_layer: 4 query_norm: NONE top_k: 2 } }"},
      {"identity", kAllFeatures,
       "blocks { width: 17 activation: IDENTITY experts { layers: 2 experts_per_layer: 4 } }"
       "blocks { width: 9 activation: IDENTITY experts { layers: 1 experts_per_layer: 1 } }"},
      {"paper", kAllFeatures,
       "blocks { width: 17 experts { layers: 2 experts_per_layer: 4 routing_scale: PAPER query_norm: NONE } }"
       "blocks { width: 9 experts { layers: 3 experts_per_layer: 4 routing_scale: PAPER query_norm: NONE } }"},
      {"projected_query", kAllFeatures,
       "blocks { width: 17 experts { layers: 3 experts_per_layer: 5 query_projection: LINEAR } }"
       "blocks { width: 9 experts { layers: 2 experts_per_layer: 4 query_projection: LINEAR top_k: 2 } }"},
      {"side_by_side", kAllFeatures,
       "blocks { width: 17 experts { layers: 3 experts_per_layer: 5 hierarchical: false } }"
       "blocks { width: 9 experts { layers: 2 experts_per_layer: 4 hierarchical: false top_k: 2 } }"},
      {"silu_dice", kAllFeatures,
       "blocks { width: 37 activation: SILU experts { layers: 2 experts_per_layer: 4 } }"
       "blocks { width: 19 activation: DICE } blocks { width: 5 batch_norm: false activation: DICE }"},
      {"cross", kAllFeatures,
       "cross { experts { layers: 2 experts_per_layer: 4 } } cross { } blocks { width: 9 } linear: true"},
      {"cross_alone", kAllFeatures, "cross { experts { layers: 2 experts_per_layer: 4 top_k: 2 } }"},
      {"linear_alone", kAllFeatures, "linear: true"},
      {"attention", kAllAttended, std::string(kAttention) + kTwoBlocks, 1000},
      {"attention_everywhere", kAllAttended, std::string(kAttention) + kTwoBlocks + "cross { } linear: true"},
      {"context_only_cross", kOneContext, "cross { experts { layers: 2 experts_per_layer: 4 } } linear: true"},
      {"candidate_only_cross", kOneCandidate, "cross { experts { layers: 2 experts_per_layer: 4 } } linear: true"},
      {"context_only", kOneContext, kTwoBlocks},
      {"context_only_top_k", kOneContext, "blocks { width: 6 experts { layers: 2 experts_per_layer: 4 top_k: 2 } }"},
      {"context_only_no_blocks", kOneContext, ""},
      {"candidate_only", kOneCandidate, kTwoBlocks},
      {"candidate_only_no_blocks", kOneCandidate, ""},
      {"wide", kWide,
       "blocks { width: 100 experts { layers: 4 experts_per_layer: 16 } }"
       "blocks { width: 65 experts { layers: 3 experts_per_layer: 33 top_k: 7 } }",
       65},
  };
}

constexpr size_t kRowCounts[] = {1, 2, 7, 8, 9, 63, 64, 65, 130, 1000};

class PredictorTest : public testing::TestWithParam<Case> {
 protected:
  ServedModel model_{GetParam().features + "network {" + GetParam().network + "}"};
};

std::vector<float> Evaluate(const Predictor& predictor, const EncodedBatch& batch, Workspace* workspace) {
  std::vector<float> logits(batch.candidate_rows, NAN);
  predictor.Evaluate(batch, workspace, absl::MakeSpan(logits));
  return logits;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// Every row count, shared and flat, on one instruction set.
void CompareAll(const ServedModel& model, size_t most_rows, InstructionSet set) {
  if (!kernels::Supported(set)) GTEST_SKIP() << "this machine cannot run it";
  const std::unique_ptr<Predictor> predictor = model.Open(set);
  ASSERT_EQ(predictor->kernels().instruction_set, set);
  Workspace workspace(*predictor);
  Comparison comparison;
  for (const size_t rows : kRowCounts) {
    if (rows > most_rows) break;
    for (const bool shared : {true, false}) {
      const EncodedBatch batch = RandomBatch(model.spec, model.table_rows, rows, shared, 100 * rows + shared);
      SCOPED_TRACE(testing::Message() << rows << " rows, " << (shared ? "shared context" : "flat"));
      ASSERT_NO_FATAL_FAILURE(comparison.Add(model.Reference(batch), Evaluate(*predictor, batch, &workspace)));
    }
  }
  EXPECT_GT(comparison.worst, 1e-3) << "the bound is too loose to show anything";
  EXPECT_LE(comparison.left_out, comparison.rows / 50) << "too many rows are close to a tie";
  testing::Test::RecordProperty("rows", std::to_string(comparison.rows));
  testing::Test::RecordProperty("left_out", std::to_string(comparison.left_out));
}

TEST_P(PredictorTest, PortableEqualsTheReference) {
  CompareAll(model_, GetParam().most_rows, InstructionSet::kPortable);
}
TEST_P(PredictorTest, Avx2EqualsTheReference) { CompareAll(model_, GetParam().most_rows, InstructionSet::kAvx2); }
TEST_P(PredictorTest, Avx512EqualsTheReference) { CompareAll(model_, GetParam().most_rows, InstructionSet::kAvx512); }

// Invariant 6: the same bits with a shared context, flat, and row by row.
TEST_P(PredictorTest, EverySplitGivesTheSameBits) {
  for (const InstructionSet set : {InstructionSet::kPortable, InstructionSet::kAvx2, InstructionSet::kAvx512}) {
    if (!kernels::Supported(set)) continue;
    const std::unique_ptr<Predictor> predictor = model_.Open(set);
    Workspace workspace(*predictor);
    for (const size_t rows : {2, 65, 100}) {
      const EncodedBatch shared = RandomBatch(model_.spec, model_.table_rows, rows, true, rows);
      const std::vector<float> whole = Evaluate(*predictor, shared, &workspace);
      EXPECT_TRUE(SameBits(whole, Evaluate(*predictor, Flatten(model_.spec, shared), &workspace)));
      for (size_t r = 0; r < rows; ++r) {
        EXPECT_TRUE(SameBits({whole[r]}, Evaluate(*predictor, OneRow(model_.spec, shared, r), &workspace))) << r;
      }
    }
  }
}

// The same bits again, on other threads, in other workspaces, and after other requests went through.
TEST_P(PredictorTest, TheSameRequestGivesTheSameBits) {
  const std::unique_ptr<Predictor> predictor = model_.Open();
  const std::unique_ptr<Predictor> another = model_.Open();
  for (const size_t rows : {1, 9, 65, 130}) {
    for (const bool shared : {true, false}) {
      const EncodedBatch batch = RandomBatch(model_.spec, model_.table_rows, rows, shared, rows);
      const EncodedBatch other = RandomBatch(model_.spec, model_.table_rows, 100, !shared, rows + 1);
      Workspace workspace(*predictor);
      const std::vector<float> first = Evaluate(*predictor, batch, &workspace);
      EXPECT_TRUE(SameBits(first, Evaluate(*predictor, batch, &workspace)));
      (void)Evaluate(*predictor, other, &workspace);
      EXPECT_TRUE(SameBits(first, Evaluate(*predictor, batch, &workspace)));
      std::vector<std::vector<float>> results(2);
      std::vector<std::thread> threads;
      for (std::vector<float>& result : results) {
        threads.emplace_back([&] {
          Workspace own(*predictor);
          for (int i = 0; i < 20; ++i) result = Evaluate(*predictor, i % 2 == 0 ? other : batch, &own);
        });
      }
      for (std::thread& thread : threads) thread.join();
      for (const std::vector<float>& result : results) EXPECT_TRUE(SameBits(first, result)) << rows;
      Workspace elsewhere(*another);
      EXPECT_TRUE(SameBits(first, Evaluate(*another, batch, &elsewhere)));
    }
  }
}

// Rows of full tiles do not depend on what stands in other tiles.
TEST_P(PredictorTest, FullTilesDoNotDependOnOtherTiles) {
  const std::unique_ptr<Predictor> predictor = model_.Open();
  Workspace workspace(*predictor);
  EncodedBatch long_batch = RandomBatch(model_.spec, model_.table_rows, 130, true, 3);
  EncodedBatch batch = long_batch;
  batch.candidate_rows = 64;
  std::vector<float> both = Evaluate(*predictor, long_batch, &workspace);
  both.resize(64);
  EXPECT_TRUE(SameBits(both, Evaluate(*predictor, batch, &workspace)));
}

INSTANTIATE_TEST_SUITE_P(Models, PredictorTest, testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

// A row that does not depend on others must not be touched by what they hold, and NaN and infinity stay in their row.
TEST(PredictorRowsTest, ANumberBeyondFloatStaysInItsRow) {
  const ServedModel model(std::string(kOneCandidate) + "network {" + kTwoBlocks + "}");
  const std::unique_ptr<Predictor> predictor = model.Open();
  Workspace workspace(*predictor);
  EncodedBatch batch = RandomBatch(model.spec, model.table_rows, 20, true, 1);
  const std::vector<float> before = Evaluate(*predictor, batch, &workspace);
  batch.features[1].values[7] = 3e38F;
  const std::vector<float> after = Evaluate(*predictor, batch, &workspace);
  for (size_t r = 0; r < 20; ++r) EXPECT_EQ(before[r] == after[r], r != 7) << r;
  // The broken row's leftovers in the workspace do not reach later, shorter requests.
  batch.candidate_rows = 5;
  const std::vector<float> shorter = Evaluate(*predictor, batch, &workspace);
  Workspace fresh(*predictor);
  EXPECT_TRUE(SameBits(shorter, Evaluate(*predictor, batch, &fresh)));
}

// A zero input has no direction; routing takes |x| as 1e-3 there, as the reference does.
TEST(PredictorRowsTest, AZeroInputIsFinite) {
  const ServedModel model(std::string(R"(
      features { id: 1 name: "a" kind: NUMERIC scope: CONTEXT }
      features { id: 2 name: "b" kind: NUMERIC scope: CANDIDATE } network {)") +
                          kTwoBlocks + "}");
  const std::unique_ptr<Predictor> predictor = model.Open();
  Workspace workspace(*predictor);
  for (const float x : {0.0F, 1e-6F, 1e-3F, 1e18F}) {
    EncodedBatch batch = RandomBatch(model.spec, model.table_rows, 3, true, 1);
    batch.features[0].values.assign(1, x);
    batch.features[1].values.assign(3, 0);
    Comparison comparison;
    const ReferenceOutput<Rounded> expected = model.Reference(batch);
    const std::vector<float> logits = Evaluate(*predictor, batch, &workspace);
    ASSERT_TRUE(std::isfinite(logits[0]));
    for (size_t r = 0; r < 3; ++r) EXPECT_NEAR(logits[r], expected.logits[r].value, expected.logits[r].Bound()) << x;
  }
}

// ---- Predict: a whole request, through the encoder, to probabilities ----

struct Request {
  ServedModel model{std::string(kAllFeatures) + "network {" + kTwoBlocks + "}"};
  Columns context{Strings("user", {"s1"})};
  Columns candidates{Ids("item", {100, 105, 999}), Numbers("price", {1, -2, 0.5F})};

  RequestView view() const { return {3, context.views(), candidates.views()}; }
};

TEST(PredictTest, GivesProbabilitiesOfTheEncodedRows) {
  const Request request;
  const std::unique_ptr<Predictor> predictor = request.model.Open();
  Workspace workspace(*predictor);
  std::vector<float> scores(3);
  PredictTimes times;
  ASSERT_TRUE(predictor->Predict(request.view(), &workspace, absl::MakeSpan(scores), &times).ok());
  EXPECT_GT(times.encode_ns, 0);
  EXPECT_GT(times.evaluate_ns, 0);
  EXPECT_EQ(workspace.batch.features[1].rows, (std::vector<uint32_t>{2, 7, 0}));
  EXPECT_EQ(workspace.counts.out_of_vocabulary[1], 1);
  const ReferenceOutput<Rounded> expected = request.model.Reference(workspace.batch);
  for (size_t r = 0; r < 3; ++r) {
    // The sigmoid's slope is s (1 - s); a score is rounded once.
    const double s = 1 / (1 + std::exp(-expected.logits[r].value));
    EXPECT_NEAR(scores[r], s, s * (1 - s) * expected.logits[r].Bound() + 0x1p-24) << r;
  }
}

TEST(PredictTest, RefusesABadRequest) {
  const Request request;
  const Columns two{Numbers("price", {1, 2})};
  const std::unique_ptr<Predictor> predictor = request.model.Open();
  Workspace workspace(*predictor);
  std::vector<float> scores(3);
  const absl::Status status = predictor->Predict({3, {}, two.views()}, &workspace, absl::MakeSpan(scores));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("'price'"));
}

TEST(PredictTest, NoCandidatesGiveNoScores) {
  const Request request;
  const std::unique_ptr<Predictor> predictor = request.model.Open();
  Workspace workspace(*predictor);
  EXPECT_TRUE(predictor->Predict({0, request.context.views(), {}}, &workspace, {}).ok());
}

// ---- golden rows ----

class GoldenTest : public testing::Test {
 protected:
  // Rewrites the model's file with one golden request.
  std::unique_ptr<Predictor> With(double score, double tolerance, uint32_t rows = 1, int64_t item = 101) {
    v1::GoldenRequest golden;
    golden.set_num_candidates(rows);
    v1::Column* column = golden.add_candidates();
    column->set_feature_id(2);
    column->add_ids(item);
    golden.add_scores(score);
    return With(golden, tolerance);
  }
  std::unique_ptr<Predictor> With(const v1::GoldenRequest& golden, double tolerance) {
    ModelFileContents contents = model_.contents;
    *contents.header.add_golden() = golden;
    contents.header.set_golden_tolerance(tolerance);
    const auto tensors = FoldTensors(model_.spec, model_.training,
                                     TensorRegistry::ForServing(model_.spec, model_.table_rows), model_.weights);
    for (const std::vector<float>& tensor : tensors) contents.tensors.emplace_back(tensor);
    EXPECT_TRUE(WriteModelFile(model_.path(), contents).ok());
    return model_.Open();
  }

  ServedModel model_{
      R"(features { id: 2 name: "i" kind: CATEGORICAL scope: CANDIDATE id_type: INT64 embedding_width: 4 }
                        network { blocks { width: 5 } })"};
};

TEST_F(GoldenTest, HoldsScoresToTheTolerance) {
  EncodedBatch batch;
  batch.context_rows = batch.candidate_rows = 1;
  batch.features.resize(1);
  batch.features[0].rows = {3};  // id 101
  const double score = 1 / (1 + std::exp(-model_.Reference(batch).logits[0].value));
  EXPECT_TRUE(With(score, 1e-6)->CheckGolden().ok());
  EXPECT_TRUE(With(score + 0.009, 0.01)->CheckGolden().ok());
  for (const double wrong : {score + 2e-6, score - 2e-6, 2.0, static_cast<double>(NAN)}) {
    const absl::Status status = With(wrong, 1e-6)->CheckGolden();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << wrong;
    EXPECT_THAT(std::string(status.message()), HasSubstr("golden request 0, candidate 0"));
  }
  EXPECT_FALSE(With(score, NAN)->CheckGolden().ok());
  EXPECT_FALSE(With(score, 1e-6, 1, 102)->CheckGolden().ok());
}

TEST_F(GoldenTest, RefusesRowsThatDoNotFit) {
  EXPECT_EQ(With(0.5, 1, 2)->CheckGolden().code(), absl::StatusCode::kDataLoss);  // one score, two candidates
  EXPECT_EQ(With(0.5, 1, 4'000'000'000)->CheckGolden().code(), absl::StatusCode::kDataLoss);
  // A request that the encoder refuses.
  v1::GoldenRequest golden;
  golden.set_num_candidates(1);
  golden.add_scores(0.5);
  golden.add_candidates()->set_feature_id(2);
  const absl::Status status = With(golden, 1)->CheckGolden();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("golden request 0 is refused: feature 'i'"));
  golden.clear_candidates();
  EXPECT_TRUE(With(golden, 1)->CheckGolden().ok());
}

// As packed for portable kernels: panels of 16 outputs, one cell a number of float32. The first block's weight is
// packed in two parts, for the context's columns and the others; both blocks' experts stand in the stacked weight and
// in U; its G is kept as well.
TEST(PredictorBytesTest, CountsPackedCopies) {
  const ServedModel model(R"(
    features { id: 1 name: "a" kind: CATEGORICAL scope: CONTEXT id_type: INT64 embedding_width: 3 }
    features { id: 2 name: "b" kind: CATEGORICAL scope: CANDIDATE id_type: INT64 embedding_width: 5 }
    network { blocks { width: 20 experts { layers: 1 experts_per_layer: 4 } } blocks { width: 7 } })");
  const std::unique_ptr<Predictor> predictor = model.Open();
  const size_t first = 32 * 3 + 32 * 5, u = 32 * 4, gram = 4 * 4,
               second = 16 * 20;  // 24 and 20 outputs fill two panels, 7 one
  EXPECT_EQ(predictor->bytes(), predictor->file().bytes() + (first + u + gram + second) * sizeof(float));
}

}  // namespace
}  // namespace hilomoe
