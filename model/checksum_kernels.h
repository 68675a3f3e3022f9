// XXH3's inner loop with the vectors that a file is compiled for. `state` is the XXH3_state_t of checksum.cc. Both give
// the same sum; neither allocates or fails.
#ifndef HILOMOE_MODEL_CHECKSUM_KERNELS_H_
#define HILOMOE_MODEL_CHECKSUM_KERNELS_H_

#include <cstddef>

namespace hilomoe::internal {

void AddToChecksum(void* state, const void* bytes, size_t size);
void AddToChecksumAvx2(void* state, const void* bytes, size_t size);  // needs AVX2

}  // namespace hilomoe::internal

#endif  // HILOMOE_MODEL_CHECKSUM_KERNELS_H_
