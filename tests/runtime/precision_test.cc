// Models stored and evaluated in fewer bits than float32, against the plain reference in double.
//
// Bound: the reference runs on Rounded. Weights carry the variance of their rounding, the inputs of products that of
// theirs (ProductRounding in model/reference.h): 10 standard deviations of all of them are allowed. Top-k routing is
// left out here, for most rows are closer to a tie than rounding reaches.
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "model/reference.h"
#include "tests/runtime/served_model.h"
#include "tests/runtime/stored_weights.h"

namespace hilomoe {
namespace {

using kernels::InstructionSet;

constexpr InstructionSet kSets[] = {InstructionSet::kPortable, InstructionSet::kAvx2, InstructionSet::kAvx512,
                                    InstructionSet::kAvx512Vnni, InstructionSet::kAvx512Bf16};

struct Case {
  std::string name;
  std::string network;
  StoragePrecision precision;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

std::vector<Case> Cases() {
  constexpr Precision kF = Precision::kFloat32, kB = Precision::kBfloat16, kI = Precision::kInt8;
  const std::string experts =
      "blocks { width: 17 experts { layers: 3 experts_per_layer: 5 } }"
      "blocks { width: 9 experts { layers: 2 experts_per_layer: 4 } }";
  return {
      {"bfloat16", experts, {kB, kB, kB}},
      {"int8", experts, {kI, kI, kI}},
      {"int8_products_alone", experts, {kF, kI, kF}},
      {"bfloat16_tables_alone", experts, {kB, kF, kF}},
      {"int8_tables_alone", experts, {kI, kF, kF}},
      {"experts_alone", experts, {kF, kF, kI}},
      {"mixed", experts, {kI, kB, kI}},
      {"no_batch_norm",
       "blocks { width: 40 batch_norm: false experts { layers: 2 experts_per_layer: 4 query_norm: NONE } }"
       "blocks { width: 24 activation: SILU }",
       {kB, kI, kB}},
      {"dense", "blocks { width: 100 } blocks { width: 65 }", {kI, kI, kF}},
      // Its stacked weights stay float32.
      {"projected_query",
       "blocks { width: 17 experts { layers: 3 experts_per_layer: 5 query_projection: LINEAR } } blocks { width: 9 }",
       {kI, kI, kI}},
      {"top_k_of_float32",
       "blocks { width: 17 experts { layers: 3 experts_per_layer: 5 top_k: 2 } } blocks { width: 9 }",
       {kF, kF, kI}},
      {"cross",
       "cross { experts { layers: 2 experts_per_layer: 4 } } cross { } blocks { width: 9 } linear: true",
       {kB, kB, kB}},
  };
}

// Also top-k with all in fewer bits, where no bound holds at ties, but every split still gives the same bits.
std::vector<Case> CasesOfBits() {
  std::vector<Case> cases = Cases();
  constexpr Precision kI = Precision::kInt8;
  cases.push_back({"top_k",
                   "blocks { width: 17 experts { layers: 3 experts_per_layer: 5 top_k: 2 } }"
                   "blocks { width: 9 activation: DICE experts { layers: 2 experts_per_layer: 20 top_k: 3 } }",
                   {kI, kI, kI}});
  return cases;
}

class PrecisionTest : public testing::TestWithParam<Case> {
 protected:
  ServedModel model_{std::string(kAllFeatures) + "network {" + GetParam().network + "}", 1, GetParam().precision};
};

TEST_P(PrecisionTest, StaysWithinTheRoundingErrors) {
  const std::vector<Rounded> arena =
      WeightsAsStored(model_.spec, model_.training, model_.weights, GetParam().precision);
  const auto tensors = model_.training.Bind<const Rounded>(model_.spec, arena.data());
  ReferenceOptions options;
  options.rounding = {GetParam().precision.dense, GetParam().precision.experts, 0};
  double worst = 0;
  for (const size_t rows : {1, 2, 9, 65, 130}) {
    for (const bool shared : {true, false}) {
      const EncodedBatch batch = RandomBatch(model_.spec, model_.table_rows, rows, shared, 100 * rows + shared);
      const ReferenceOutput<Rounded> expected = ReferenceForward(model_.spec, tensors, batch, options);
      for (const InstructionSet set : kSets) {
        if (!kernels::Supported(set)) continue;
        const std::unique_ptr<Predictor> predictor = model_.Open(set);
        Workspace workspace(*predictor);
        std::vector<float> logits(rows, NAN);
        predictor->Evaluate(batch, &workspace, absl::MakeSpan(logits));
        for (size_t r = 0; r < rows; ++r) {
          const double bound = expected.logits[r].Bound(), error = std::fabs(logits[r] - expected.logits[r].value);
          ASSERT_LE(error, bound) << predictor->kernels().name << ", row " << r << " of " << rows;
          worst = std::max(worst, error / bound);
        }
      }
    }
  }
  EXPECT_GT(worst, 0.02) << "the bound is too loose to show anything";
}

class PrecisionBitsTest : public PrecisionTest {};

// A request gives the same bits with a shared context and flat, whole and row by row.
TEST_P(PrecisionBitsTest, EverySplitGivesTheSameBits) {
  constexpr size_t kRows = 70;
  for (const InstructionSet set : kSets) {
    if (!kernels::Supported(set)) continue;
    const std::unique_ptr<Predictor> predictor = model_.Open(set);
    Workspace workspace(*predictor);
    const EncodedBatch shared = RandomBatch(model_.spec, model_.table_rows, kRows, true, 5);
    std::vector<float> whole(kRows), flat(kRows);
    predictor->Evaluate(shared, &workspace, absl::MakeSpan(whole));
    predictor->Evaluate(Flatten(model_.spec, shared), &workspace, absl::MakeSpan(flat));
    EXPECT_EQ(std::memcmp(whole.data(), flat.data(), kRows * sizeof(float)), 0) << predictor->kernels().name;
    for (size_t r = 0; r < kRows; ++r) {
      float alone = NAN;
      predictor->Evaluate(OneRow(model_.spec, shared, r), &workspace, {&alone, 1});
      EXPECT_EQ(std::memcmp(&alone, &whole[r], sizeof(alone)), 0) << predictor->kernels().name << ", row " << r;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, PrecisionTest, testing::ValuesIn(Cases()),
                         [](const testing::TestParamInfo<Case>& info) { return info.param.name; });
INSTANTIATE_TEST_SUITE_P(All, PrecisionBitsTest, testing::ValuesIn(CasesOfBits()),
                         [](const testing::TestParamInfo<Case>& info) { return info.param.name; });

}  // namespace
}  // namespace hilomoe
