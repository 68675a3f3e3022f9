#include "model/checksum_kernels.h"
#include "model/streamed_xxh3.h"

namespace hilomoe::internal {

void AddToChecksumAvx2(void* state, const void* bytes, size_t size) {
  XXH3_64bits_update(static_cast<XXH3_state_t*>(state), bytes, size);
}

}  // namespace hilomoe::internal
