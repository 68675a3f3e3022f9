// Model files of every format version stay readable. A file is written once, when its version is new, and never again:
//
//   export HILOMOE_WRITE_MODEL=tests/compatibility/model_v2.hilomoe
//   compatibility_test --gtest_also_run_disabled_tests --gtest_filter='*WriteModelV2'
#include <cmath>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "model/encoded_batch.h"
#include "runtime/column_view.h"
#include "tests/runtime/request_columns.h"
#include "tests/runtime/served_model.h"

#define XXH_INLINE_ALL
#include "xxhash.h"

namespace hilomoe {
namespace {

constexpr char kModelV1[] = HILOMOE_FILES "/model_v1.hilomoe";
constexpr char kModelV2[] = HILOMOE_FILES "/model_v2.hilomoe";

constexpr char kNetwork[] = R"(network {
  blocks { width: 8 experts { layers: 2 experts_per_layer: 4 } }
  blocks { width: 6 experts { layers: 2 experts_per_layer: 4 top_k: 2 } } })";

// Two contexts and six candidates: known and unknown ids, empty rows, numbers.
v1::GoldenRequest MakeRequest(const std::string& user, float days) {
  v1::GoldenRequest request;
  request.set_num_candidates(6);
  const auto column = [](v1::Column* to, uint32_t feature) {
    to->set_feature_id(feature);
    return to;
  };
  const auto append = [](v1::Column* to, const std::string& text) {
    to->mutable_strings()->append(text);
    to->add_string_bytes(static_cast<uint32_t>(text.size()));
  };
  append(column(request.add_context(), 1), user);
  v1::Column* history = column(request.add_context(), 3);
  for (const int64_t id : {100, 101, 102, 103, 104, 105, 777}) history->add_ids(id);
  history->add_row_lengths(7);
  column(request.add_context(), 6)->add_numbers(37);
  column(request.add_context(), 7)->add_numbers(days);
  v1::Column* item = column(request.add_candidates(), 2);
  v1::Column* tags = column(request.add_candidates(), 4);
  v1::Column* price = column(request.add_candidates(), 5);
  v1::Column* hash = column(request.add_candidates(), 8);
  for (int i = 0; i < 6; ++i) {
    item->add_ids(100 + 2 * i);
    tags->add_row_lengths(static_cast<uint32_t>(i % 3));
    for (int j = 0; j < i % 3; ++j) append(tags, j == 0 ? "s2" : "no such tag");
    price->add_row_lengths(i == 4 ? 0 : 1);
    if (i != 4) price->add_numbers(static_cast<float>(i) - 2.5F);
    hash->add_ids(-1'000'000'007LL * i);
  }
  return request;
}

struct GoldenScores {
  std::vector<double> scores;
  double tolerance = 0;
};

// Writes the model, with golden rows that have the scores which `make` gives.
void WriteModel(ServedModel* model, const std::function<GoldenScores(const v1::GoldenRequest&)>& make) {
  const char* path = std::getenv("HILOMOE_WRITE_MODEL");
  ASSERT_NE(path, nullptr) << "say where to";
  double tolerance = 0;
  for (const auto& [user, days] : {std::pair("s1", -0.5F), std::pair("nobody", 0.25F)}) {
    v1::GoldenRequest& golden = *model->contents.header.add_golden() = MakeRequest(user, days);
    const GoldenScores made = make(golden);
    for (const double score : made.scores) golden.add_scores(score);
    tolerance = std::max(tolerance, made.tolerance);
  }
  model->contents.header.set_golden_tolerance(tolerance);
  model->contents.header.mutable_provenance()->set_created_by("compatibility_test");
  const auto tensors = FoldTensors(model->spec, model->training,
                                   TensorRegistry::ForServing(model->spec, model->table_rows), model->weights);
  for (const std::vector<float>& tensor : tensors) model->contents.tensors.emplace_back(tensor);
  ASSERT_TRUE(WriteModelFile(path, model->contents).ok());
}

// The reference's scores and, as tolerance, the rounding errors of float32.
GoldenScores ReferenceScores(const ServedModel& model, const Predictor& predictor, const v1::GoldenRequest& golden) {
  std::vector<ColumnView> context, candidates;
  AppendColumnViews(golden.context(), &context);
  AppendColumnViews(golden.candidates(), &candidates);
  EncodedBatch batch;
  EXPECT_TRUE(predictor.encoder().Encode({6, context, candidates}, &batch, nullptr).ok());
  const ReferenceOutput<Rounded> output = model.Reference(batch);
  GoldenScores made;
  for (size_t r = 0; r < 6; ++r) {
    EXPECT_GT(output.tie_gap[r], Rounded::kDeviations) << "too close to a tie; take another seed";
    made.scores.push_back(1 / (1 + std::exp(-output.logits[r].value)));
    made.tolerance =
        std::max(made.tolerance, made.scores[r] * (1 - made.scores[r]) * output.logits[r].Bound() + Rounded::kUnit);
  }
  return made;
}

TEST(CompatibilityTest, DISABLED_WriteModelV1) {
  ServedModel model(std::string(kAllFeatures) + kNetwork, 11);
  const std::unique_ptr<Predictor> predictor = model.Open();
  WriteModel(&model, [&](const v1::GoldenRequest& golden) { return ReferenceScores(model, *predictor, golden); });
}

// The scores as they are served by portable kernels when the file is written: instruction sets may differ by an input
// that they round the other way, 2^-9 of it.
TEST(CompatibilityTest, DISABLED_WriteModelV2) {
  ServedModel model(std::string(kAllFeatures) + kNetwork, 11,
                    {Precision::kInt8, Precision::kBfloat16, Precision::kBfloat16});
  const std::unique_ptr<Predictor> predictor = model.Open(kernels::InstructionSet::kPortable);
  WriteModel(&model, [&](const v1::GoldenRequest& golden) {
    const GoldenScores reference = ReferenceScores(model, *predictor, golden);
    std::vector<ColumnView> context, candidates;
    AppendColumnViews(golden.context(), &context);
    AppendColumnViews(golden.candidates(), &candidates);
    Workspace workspace(*predictor);
    std::vector<float> scores(6);
    EXPECT_TRUE(predictor->Predict({6, context, candidates}, &workspace, absl::MakeSpan(scores)).ok());
    for (size_t r = 0; r < 6; ++r) EXPECT_NEAR(scores[r], reference.scores[r], 0.05);
    return GoldenScores{{scores.begin(), scores.end()}, 2e-3};
  });
}

// Loads the file on every instruction set and replays its golden rows.
void ExpectServed(const char* path) {
  for (const auto set :
       {kernels::InstructionSet::kPortable, kernels::InstructionSet::kAvx2, kernels::InstructionSet::kAvx512,
        kernels::InstructionSet::kAvx512Vnni, kernels::InstructionSet::kAvx512Bf16}) {
    auto predictor = Predictor::Create(*ModelFile::Open(path), {.instruction_set = set});
    ASSERT_TRUE(predictor.ok()) << predictor.status();
    const absl::Status golden = (*predictor)->CheckGolden();
    EXPECT_TRUE(golden.ok()) << golden;
  }
}

TEST(CompatibilityTest, TheFileOfVersion1IsTheOneThatWasKept) {
  const std::string bytes = ReadBytes(kModelV1);
  EXPECT_LT(bytes.size(), 20'000);
  EXPECT_EQ(bytes.substr(0, 12), std::string("HILOMOE\n\1\0\0\0", 12));
  EXPECT_EQ(XXH3_64bits(bytes.data(), bytes.size()), 8002398617050250300U)
      << "keep the old file; a new format gets a new one";
}

TEST(CompatibilityTest, Version1IsServed) {
  auto file = ModelFile::Open(kModelV1);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->header().golden_size(), 2);
  // About 200 float32 operations a score.
  EXPECT_LT(file->header().golden_tolerance(), 1e-5);
  EXPECT_EQ(file->vocabularies()[0].Find("s5"), 7);
  EXPECT_EQ(file->vocabularies()[0].Find("s6"), kOutOfVocabularyRow);
  EXPECT_EQ(file->vocabularies()[1].Find(int64_t{103}), 5);
  EXPECT_EQ(file->vocabularies()[4].Find(int64_t{-1'000'000'007}), 7);
  ExpectServed(kModelV1);
}

TEST(CompatibilityTest, TheFileOfVersion2IsTheOneThatWasKept) {
  const std::string bytes = ReadBytes(kModelV2);
  EXPECT_LT(bytes.size(), 20'000);
  EXPECT_EQ(bytes.substr(0, 12), std::string("HILOMOE\n\2\0\0\0", 12));
  EXPECT_EQ(XXH3_64bits(bytes.data(), bytes.size()), 3165426100782704809U)
      << "keep the old file; a new format gets a new one";
}

TEST(CompatibilityTest, Version2IsServed) {
  const auto file = ModelFile::Open(kModelV2);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->header().golden_size(), 2);
  EXPECT_EQ(file->matrices().features.tables[0]->precision, Precision::kInt8);
  EXPECT_EQ(file->matrices().blocks[0].stacked_weight->precision, Precision::kBfloat16);
  EXPECT_EQ(file->matrices().blocks[0].u->precision, Precision::kBfloat16);
  ExpectServed(kModelV2);
}

}  // namespace
}  // namespace hilomoe
