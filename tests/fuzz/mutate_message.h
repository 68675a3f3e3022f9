// Mutations that know the schema: a change of a message's bytes or text seldom gets past its parser.
#ifndef HILOMOE_TESTS_FUZZ_MUTATE_MESSAGE_H_
#define HILOMOE_TESTS_FUZZ_MUTATE_MESSAGE_H_

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>

#include "google/protobuf/message.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace hilomoe {

using MutationRandom = std::minstd_rand;

inline size_t Below(size_t n, MutationRandom* random) { return (*random)() % n; }
inline bool OneIn(size_t n, MutationRandom* random) { return Below(n, random) == 0; }

// Changes one field, anywhere in the message: sets, clears, adds, removes, repeats; strings are copied from one field
// to another, as names refer to each other.
void MutateMessage(google::protobuf::Message* message, MutationRandom* random);

// Grows by at most `more` bytes.
void MutateBytes(std::string* bytes, size_t more);

// For LLVMFuzzerCustomMutator: changes the message that the input holds as bytes, one time in eight the bytes
// themselves. `message`: empty, of the input's type.
size_t MutateBinary(google::protobuf::Message* message, uint8_t* data, size_t size, size_t max_size,
                    MutationRandom* random);
// The same of a textproto.
size_t MutateText(google::protobuf::Message* message, uint8_t* data, size_t size, size_t max_size,
                  MutationRandom* random);

// Writes `bytes` over the input. When they are longer than max_size, mutates what is there.
size_t Replace(const std::string& bytes, uint8_t* data, size_t size, size_t max_size);

}  // namespace hilomoe

#endif  // HILOMOE_TESTS_FUZZ_MUTATE_MESSAGE_H_
