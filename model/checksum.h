// XXH3-64 of bytes that come in pieces, with the widest vectors that the processor has.
#ifndef HILOMOE_MODEL_CHECKSUM_H_
#define HILOMOE_MODEL_CHECKSUM_H_

#include <cstddef>
#include <cstdint>

struct XXH3_state_s;

namespace hilomoe {

class Checksum {
 public:
  Checksum();
  ~Checksum();
  Checksum(const Checksum&) = delete;
  Checksum& operator=(const Checksum&) = delete;

  void Add(const void* bytes, size_t size);
  uint64_t value() const;  // of all that was added
  void Reset();

 private:
  XXH3_state_s* state_;
};

uint64_t ChecksumOf(const void* bytes, size_t size);

}  // namespace hilomoe

#endif  // HILOMOE_MODEL_CHECKSUM_H_
