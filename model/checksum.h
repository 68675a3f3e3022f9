// XXH3-64 of bytes that come in pieces, with AVX2 where the processor has it. One thread at a time.
#ifndef HILOMOE_MODEL_CHECKSUM_H_
#define HILOMOE_MODEL_CHECKSUM_H_

#include <cstddef>
#include <cstdint>

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
  void* state_;  // the library's, whose header stays out of this one
};

// Of what is short, or about to be written: without memory of its own, and with the vectors that every processor has.
uint64_t ChecksumOf(const void* bytes, size_t size);

}  // namespace hilomoe

#endif  // HILOMOE_MODEL_CHECKSUM_H_
