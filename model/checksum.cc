#include "model/checksum.h"

#include <new>

#include "xxhash.h"
// The library's choice at run time; included inline, XXH3 would have the vectors of the compiler's baseline.
#if defined(__x86_64__)
#include "xxh_x86dispatch.h"
#endif

namespace hilomoe {

Checksum::Checksum() : state_(XXH3_createState()) {
  if (state_ == nullptr) throw std::bad_alloc();
  Reset();
}

Checksum::~Checksum() { XXH3_freeState(state_); }

void Checksum::Add(const void* bytes, size_t size) { XXH3_64bits_update(state_, bytes, size); }

uint64_t Checksum::value() const { return XXH3_64bits_digest(state_); }

void Checksum::Reset() { XXH3_64bits_reset(state_); }

uint64_t ChecksumOf(const void* bytes, size_t size) { return XXH3_64bits(bytes, size); }

}  // namespace hilomoe
