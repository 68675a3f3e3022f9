// What the vectorised kernels share. They are written once, over a vector type V that each instruction set's own file
// defines in its unnamed namespace: so everything instantiated is local to that file and compiled with its flags alone.
//
// V has kLanes floats (Float), as many int32 (Int), one truth value per lane (Mask), the operations that
// vector_routing.h, vector_row_routing.h, vector_product.h and vector_experts.h use, "First" variants that touch only
// the first n lanes in memory (loads give 0 in the others), and the constants kTopKVectors, kGramExperts and
// kSingleRows, explained where set.
#ifndef HILOMOE_RUNTIME_KERNELS_VECTOR_COMMON_H_
#define HILOMOE_RUNTIME_KERNELS_VECTOR_COMMON_H_

#include <cstddef>

namespace hilomoe::kernels {

// static, as every function here is local to the file that includes it.
static inline int AtMost(int a, int b) { return a < b ? a : b; }

// Before a loop over the registers of a tile. GCC 12 unrolls such loops anyway, but so late that it keeps the tile in
// memory as well: clears it, copies the registers to it, copies that again for a function it hands the tile to.
#define HILOMOE_UNROLL _Pragma("GCC unroll 16")

static inline size_t Offset(int row, int leading) { return static_cast<size_t>(row) * static_cast<size_t>(leading); }

// Of a sum over experts: every fourth belongs to one, and then (0 + 1) + (2 + 3). One alone would wait for itself.
constexpr int kSumChains = 4;

// each(i, chain of i) for i in [0, n).
template <class Each>
__attribute__((always_inline)) inline void ForEachInChains(int n, const Each& each) {
  for (int i = 0; i < n; i += kSumChains) {
    for (int chain = 0; chain < AtMost(kSumChains, n - i); ++chain) each(i + chain, chain);
  }
}

// Smallest float not below ln 2^-126; V::Exp gives 0 below it, so that no denormal slows the products that follow.
constexpr float kSmallestExponent = -0x1.5d589ep6f;
constexpr float kLog2E = 0x1.715476p0f;
// ln 2 in two parts; the high one has 21 bits, so that a multiple of it by |n| <= 126 fits a fused multiply-add's
// result without rounding.
constexpr float kLn2High = 0x1.62e430p-1f;
constexpr float kLn2Low = -0x1.05c610p-29f;
// e^r = 1 + r + r^2 q(r) for |r| <= ln(2)/2: q of degree 4, found by Remez exchange on the relative error of e^r
// (3.1e-9 before the coefficients are rounded), highest power first. e^0 is exactly 1.
constexpr float kExpCoefficients[] = {0x1.6a2434p-10f, 0x1.1239e2p-7f, 0x1.5558f2p-5f, 0x1.555492p-3f, 0x1.fffffcp-2f};

// What is common to every V::Exp: e^r of the reduced argument. Relative error of the whole exponential: 3.1e-9 of the
// polynomial, 2^-26 of r, half a unit of each of the last two roundings, together below 2^-23 (7.8e-8, or 2^-23.6, over
// all floats).
template <class V>
typename V::Float ExpOfReduced(typename V::Float r) {
  typename V::Float q = V::Broadcast(kExpCoefficients[0]);
  for (int i = 1; i < 5; ++i) q = V::MulAdd(q, r, V::Broadcast(kExpCoefficients[i]));
  const typename V::Float one = V::Broadcast(1.0f);
  return V::MulAdd(V::MulAdd(q, r, one), r, one);
}

}  // namespace hilomoe::kernels

#endif  // HILOMOE_RUNTIME_KERNELS_VECTOR_COMMON_H_
