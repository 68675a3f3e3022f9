// xxhash.h, inline, for bytes that stream from memory: what it needs next is fetched 8 KiB ahead, into L2. The
// library's 384 or 512 bytes end where a page does, which is where the processor's own prefetching stops, too; and
// lines on their way to L1 would be fewer at once than those to L2. Instead of xxhash.h, and in no header.
//
// Summing and checking 4 GiB in memory (Zen 5, AVX2, medians of 9 to 25 interleaved rounds): 4 KiB ahead instead of 384
// bytes .12 instead of .15 s with two threads; 8 KiB ahead into L2 instead of 4 KiB into L1 4 to 7 % less with two
// threads and 5 to 13 % with one. No better: 6, 12, 16 or 32 KiB, both at once, a piece's lines in one burst, AVX-512.
#ifndef HILOMOE_MODEL_STREAMED_XXH3_H_
#define HILOMOE_MODEL_STREAMED_XXH3_H_

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define XXH_INLINE_ALL
#define XXH_PREFETCH_DIST 8192
// The library has a setting for how far ahead, but none for where to. NOLINTNEXTLINE(bugprone-reserved-identifier)
#define __builtin_prefetch(address, write, locality) __builtin_prefetch(address, write, 2)
#include "xxhash.h"
#undef __builtin_prefetch

#endif  // HILOMOE_MODEL_STREAMED_XXH3_H_
