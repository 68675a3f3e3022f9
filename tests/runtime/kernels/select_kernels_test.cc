#include <cstddef>

#include "tests/runtime/kernels/kernel_test.h"

namespace hilomoe::kernels {
namespace {

TEST(SelectKernels, ListIsOrderedAndComplete) {
  int count = 0;
  const Kernels* const* all = AllKernels(&count);
  ASSERT_GE(count, 1);
  EXPECT_EQ(all[0]->instruction_set, InstructionSet::kPortable);
  for (int i = 1; i < count; ++i) EXPECT_LT(all[i - 1]->instruction_set, all[i]->instruction_set);
#ifdef __x86_64__
  EXPECT_EQ(count, 5);
#endif
}

constexpr int kFloat32 = static_cast<int>(Precision::kFloat32);
constexpr int kBfloat16 = static_cast<int>(Precision::kBfloat16);
constexpr int kInt8 = static_cast<int>(Precision::kInt8);

// The tables for CPUs with more than AVX-512's foundation differ from it in the products that they have instructions
// for and in what rounds their inputs, and in nothing else.
TEST(SelectKernels, TheLaterAvx512SetsAddTheirProducts) {
  int count = 0;
  const Kernels* const* all = AllKernels(&count);
  for (int i = 3; i < count; ++i) {
    const Kernels &foundation = *all[2], &later = *all[i];
    EXPECT_STRNE(later.name, foundation.name);
    EXPECT_EQ(later.route_dense, foundation.route_dense);
    EXPECT_EQ(later.route_top_k, foundation.route_top_k);
    EXPECT_EQ(later.add_experts_top_k, foundation.add_experts_top_k);
    EXPECT_EQ(later.squared_norm, foundation.squared_norm);
    EXPECT_EQ(later.head, foundation.head);
    EXPECT_EQ(later.silu, foundation.silu);
    EXPECT_EQ(later.dice, foundation.dice);
    EXPECT_EQ(later.attend, foundation.attend);
    EXPECT_EQ(later.add, foundation.add);
    EXPECT_EQ(later.round_to_bfloat16 != foundation.round_to_bfloat16, i == 4);
    EXPECT_EQ(later.product[kFloat32], foundation.product[kFloat32]);
    EXPECT_EQ(later.product[kBfloat16] != foundation.product[kBfloat16], i == 4);
    EXPECT_NE(later.product[kInt8], foundation.product[kInt8]);
  }
}

TEST(SelectKernels, NoTableBorrowsFromAnother) {
  int count = 0;
  const Kernels* const* all = AllKernels(&count);
  for (int i = 0; i < count && i < 3; ++i) {
    for (int j = 0; j < i; ++j) {
      EXPECT_STRNE(all[i]->name, all[j]->name);
      EXPECT_NE(all[i]->product[kFloat32], all[j]->product[kFloat32]);
      EXPECT_NE(all[i]->product[kBfloat16], all[j]->product[kBfloat16]);
      // AVX-512's foundation does not multiply bytes or words.
      EXPECT_EQ(all[i]->product[kInt8] == all[j]->product[kInt8], i == 2 && j == 1);
      EXPECT_NE(all[i]->route_dense, all[j]->route_dense);
      EXPECT_NE(all[i]->route_top_k, all[j]->route_top_k);
      EXPECT_NE(all[i]->add_experts_top_k, all[j]->add_experts_top_k);
      EXPECT_NE(all[i]->squared_norm, all[j]->squared_norm);
      EXPECT_NE(all[i]->head, all[j]->head);
      EXPECT_NE(all[i]->add, all[j]->add);
    }
  }
}

// The compiler's run-time library asks CPUID and XCR0 on its own.
TEST(SelectKernels, SupportAgreesWithTheCompilersOwnDetection) {
  EXPECT_TRUE(Supported(InstructionSet::kPortable));
#ifdef __x86_64__
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("popcnt");
  EXPECT_EQ(Supported(InstructionSet::kAvx2), avx2);
  EXPECT_EQ(Supported(InstructionSet::kAvx512), avx2 && __builtin_cpu_supports("avx512f"));
  EXPECT_EQ(Supported(InstructionSet::kAvx512Vnni), Supported(InstructionSet::kAvx512) &&
                                                        __builtin_cpu_supports("avx512bw") &&
                                                        __builtin_cpu_supports("avx512vnni"));
  EXPECT_EQ(Supported(InstructionSet::kAvx512Bf16),
            Supported(InstructionSet::kAvx512Vnni) && __builtin_cpu_supports("avx512bf16"));
#else
  EXPECT_FALSE(Supported(InstructionSet::kAvx2));
  EXPECT_FALSE(Supported(InstructionSet::kAvx512));
#endif
}

TEST(SelectKernels, TakesTheBestSupportedUpToTheLimit) {
  for (const InstructionSet limit : kInstructionSets) {
    InstructionSet best = InstructionSet::kPortable;
    for (const InstructionSet set : kInstructionSets) {
      if (set <= limit && Supported(set)) best = set;
    }
    EXPECT_EQ(SelectKernels(limit).instruction_set, best);
  }
  EXPECT_EQ(&SelectKernels(), &SelectKernels(InstructionSet::kAvx512Bf16));
}

class InstructionSetUnderTest : public KernelTest {};

// Proof by arithmetic that the selected table runs the code of its instruction set, whatever its labels say: the number
// of partial sums in the head's product is 16 (portable), 4 chains of 8 lanes or 4 chains of 16. The first product is
// 2^24, all others 1. A partial sum at 2^24 swallows every 1 that is added to it (a tie, rounded to even); the others
// count theirs exactly. So of `width` products, those that share the first one's partial sum are missing.
TEST_P(InstructionSetUnderTest, ShowsInTheNumberOfPartialSums) {
  constexpr int kWidth = 1024;
  constexpr int kPartialSums[] = {16, 32, 64, 64, 64};
  std::vector<float> x(kWidth, 1.0f);
  x[0] = 0x1p24f;
  const std::vector<float> ones(kWidth, 1.0f);
  float logit = 0;
  SelectKernels(GetParam()).head(1, kWidth, x.data(), kWidth, ones.data(), 0.0f, &logit);
  const int sums = kPartialSums[static_cast<int>(GetParam())];
  EXPECT_EQ(logit, 0x1p24f + static_cast<float>(kWidth - kWidth / sums));
  EXPECT_EQ(&SelectKernels(GetParam()), kernels_);
}

INSTANTIATE_TEST_SUITE_P(All, InstructionSetUnderTest, testing::ValuesIn(kInstructionSets), InstructionSetName);

}  // namespace
}  // namespace hilomoe::kernels
