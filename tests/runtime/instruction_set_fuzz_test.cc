// Random models and rows on every instruction set that this machine has, for HILOMOE_FUZZ_SECONDS (5 unless told) from
// HILOMOE_FUZZ_SEED (1) on:
//   * finite rows stay within the reference's bounds (precision_test.cc, predictor_test.cc), but for rows at a top-k
//   tie;
//   * a row has the same bits alone, among others and with a flat context, whatever the others hold;
//   * a row with NaN, infinities or subnormal numbers is finite on every set or on none, and nothing crashes.
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/runtime/served_model.h"
#include "tests/runtime/stored_weights.h"

namespace hilomoe {
namespace {

using kernels::InstructionSet;

constexpr InstructionSet kSets[] = {InstructionSet::kPortable, InstructionSet::kAvx2, InstructionSet::kAvx512,
                                    InstructionSet::kAvx512Vnni, InstructionSet::kAvx512Bf16};

class Draw {
 public:
  explicit Draw(uint64_t seed) : engine_(seed) {}
  size_t Below(size_t n) { return engine_() % n; }
  size_t Between(size_t least, size_t most) { return least + Below(most - least + 1); }
  bool OneIn(size_t n) { return Below(n) == 0; }
  template <size_t n>
  std::string OneOf(const char* const (&names)[n]) {
    return names[Below(n)];
  }

 private:
  std::mt19937_64 engine_;
};

std::string Experts(Draw* draw) {
  const size_t K = draw->Between(1, draw->OneIn(4) ? 40 : 9);
  std::string text = absl::StrCat(" experts { layers: ", draw->Between(1, 5), " experts_per_layer: ", K,
                                  " query_norm: ", draw->OneOf({"UNIT", "NONE"}));
  if (K > 2 && draw->OneIn(2)) absl::StrAppend(&text, " top_k: ", draw->Between(2, K - 1));
  if (draw->OneIn(4)) absl::StrAppend(&text, " hierarchical: false");
  if (draw->OneIn(4)) absl::StrAppend(&text, " query_projection: LINEAR");
  return text + " }";
}

std::string Network(Draw* draw) {
  std::string text;
  for (size_t blocks = draw->Below(4); blocks > 0; --blocks) {
    absl::StrAppend(&text, "blocks { width: ", draw->Between(1, draw->OneIn(3) ? 100 : 20),
                    " activation: ", draw->OneOf({"RELU", "RELU", "IDENTITY", "SILU", "DICE"}));
    if (draw->OneIn(3)) absl::StrAppend(&text, " batch_norm: false");
    if (!draw->OneIn(3)) text += Experts(draw);
    text += " }";
  }
  for (size_t layers = draw->OneIn(3) ? draw->Between(1, 2) : 0; layers > 0; --layers) {
    absl::StrAppend(&text, "cross {", draw->OneIn(2) ? Experts(draw) : "", " }");
  }
  if (draw->OneIn(3)) text += "linear: true ";
  return text;
}

Precision AnyPrecision(Draw* draw) {
  constexpr Precision kAll[] = {Precision::kFloat32, Precision::kBfloat16, Precision::kInt8};
  return kAll[draw->Below(3)];
}

bool HasTopK(const ModelSpec& spec) {
  for (const BlockSpec& block : spec.blocks()) {
    if (block.top_k > 0) return true;
  }
  return false;
}

enum class Spoilt {
  kNot,
  kOdd,
  kHuge,  // whether a sum of such numbers overflows hangs on where it is rounded
};

// Puts an odd number into candidate row r, if a feature of candidates is a number.
Spoilt Spoil(const ModelSpec& spec, size_t r, Draw* draw, EncodedBatch* batch) {
  constexpr float kOdd[] = {std::numeric_limits<float>::quiet_NaN(),
                            std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity(),
                            std::numeric_limits<float>::denorm_min(),
                            1e-40F,
                            3e38F,
                            -0.0F};
  for (size_t f = 0; f < spec.features().size(); ++f) {
    if (!spec.features()[f].is_number() || spec.features()[f].is_context()) continue;
    const float odd = kOdd[draw->Below(std::size(kOdd))];
    batch->features[f].values[r] = odd;
    return std::isfinite(odd) && odd > 1 ? Spoilt::kHuge : Spoilt::kOdd;
  }
  return Spoilt::kNot;
}

struct Counts {
  size_t models = 0, rows = 0, bounded = 0, at_ties = 0, spoilt = 0;
};

bool SameBits(float a, float b) { return std::memcmp(&a, &b, sizeof(a)) == 0; }

void CheckModel(uint64_t seed, Counts* counts) {
  Draw draw(seed);
  const bool attended = draw.OneIn(3);
  const std::string config = absl::StrCat(kAllFeatures, attended ? kAlignedSequences : "", "network {", Network(&draw),
                                          attended ? kAttention : "", "}");
  StoragePrecision precision = {AnyPrecision(&draw), AnyPrecision(&draw), AnyPrecision(&draw)};
  if (draw.OneIn(2)) precision = {};
  const ServedModel model(config, seed, precision);
  SCOPED_TRACE(testing::Message() << "HILOMOE_FUZZ_SEED=" << seed << ": " << config);
  ++counts->models;
  const size_t rows = draw.OneIn(8) ? 0 : draw.Between(1, draw.OneIn(4) ? 140 : 12);
  EncodedBatch batch = RandomBatch(model.spec, model.table_rows, rows, true, seed);
  std::vector<Spoilt> spoilt(rows, Spoilt::kNot);
  for (size_t r = 0; r < rows; ++r) {
    if (draw.OneIn(6)) spoilt[r] = Spoil(model.spec, r, &draw, &batch);
  }
  EncodedBatch clean = batch;  // the reference has no place for what is not finite
  for (size_t f = 0; f < model.spec.features().size(); ++f) {
    if (!model.spec.features()[f].is_number() || model.spec.features()[f].is_context()) continue;
    for (size_t r = 0; r < rows; ++r)
      clean.features[f].values[r] = spoilt[r] != Spoilt::kNot ? 0 : clean.features[f].values[r];
  }
  const std::vector<Rounded> arena = WeightsAsStored(model.spec, model.training, model.weights, precision);
  ReferenceOptions options;
  options.rounding = {precision.dense, precision.experts, 0};
  const ReferenceOutput<Rounded> expected =
      ReferenceForward(model.spec, model.training.Bind<const Rounded>(model.spec, arena.data()), clean, options);
  // Most rows of a rounded model are closer to a tie than rounding reaches, and a tie in one block moves the next.
  const bool bounded =
      !HasTopK(model.spec) || (precision.dense == Precision::kFloat32 && precision.embeddings == Precision::kFloat32 &&
                               precision.experts == Precision::kFloat32);
  std::vector<int> finite(rows, -1);
  for (const InstructionSet set : kSets) {
    if (!kernels::Supported(set)) continue;
    const std::unique_ptr<Predictor> predictor = model.Open(set);
    SCOPED_TRACE(predictor->kernels().name);
    Workspace workspace(*predictor);
    std::vector<float> whole(rows, NAN), flat(rows, NAN);
    predictor->Evaluate(batch, &workspace, absl::MakeSpan(whole));
    predictor->Evaluate(Flatten(model.spec, batch), &workspace, absl::MakeSpan(flat));
    for (size_t r = 0; r < rows; ++r) {
      ++counts->rows;
      float alone = NAN;
      predictor->Evaluate(OneRow(model.spec, batch, r), &workspace, {&alone, 1});
      // Which of several NaNs it is may depend on the order of operands.
      ASSERT_TRUE((std::isnan(alone) && std::isnan(whole[r])) || SameBits(alone, whole[r])) << "row " << r;
      ASSERT_TRUE((std::isnan(flat[r]) && std::isnan(whole[r])) || SameBits(flat[r], whole[r])) << "row " << r;
      if (spoilt[r] != Spoilt::kNot) {
        ++counts->spoilt;
        if (finite[r] >= 0 && spoilt[r] == Spoilt::kOdd) {
          ASSERT_EQ(std::isfinite(whole[r]), finite[r] == 1) << "row " << r << ": " << whole[r];
        }
        finite[r] = std::isfinite(whole[r]) ? 1 : 0;
        continue;
      }
      ASSERT_TRUE(std::isfinite(whole[r])) << "row " << r;
      if (!bounded) continue;
      if (HasTopK(model.spec) && expected.tie_gap[r] <= Rounded::kDeviations) {
        ++counts->at_ties;
        continue;
      }
      ++counts->bounded;
      ASSERT_NEAR(whole[r], expected.logits[r].value, expected.logits[r].Bound()) << "row " << r << " of " << rows;
    }
  }
}

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

TEST(InstructionSetFuzzTest, AllAgree) {
  const std::chrono::seconds seconds(FromEnvironment("HILOMOE_FUZZ_SECONDS", 5));
  const auto end = std::chrono::steady_clock::now() + seconds;
  Counts counts;
  uint64_t seed = FromEnvironment("HILOMOE_FUZZ_SEED", 1);
  // At least a few models, however slow the machine is.
  for (size_t n = 0; n < 20 || std::chrono::steady_clock::now() < end; ++n, ++seed) {
    CheckModel(seed, &counts);
    if (HasFailure()) break;
  }
  std::printf("%zu models, %zu rows; %zu held to a bound, %zu at a tie, %zu spoilt\n", counts.models, counts.rows,
              counts.bounded, counts.at_ties, counts.spoilt);
  EXPECT_GT(counts.bounded, 0u);
  EXPECT_GT(counts.spoilt, 0u);
}

}  // namespace
}  // namespace hilomoe
