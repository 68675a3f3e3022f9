// Stands in for the C library's locks in the binary it is linked into and counts what the calling thread takes.
#ifndef HILOMOE_TESTS_SERVER_LOCK_COUNT_H_
#define HILOMOE_TESTS_SERVER_LOCK_COUNT_H_

#include <cstdint>

namespace hilomoe {

uint64_t Locks();  // mutexes and reader-writer locks, since this thread started

}  // namespace hilomoe

#endif  // HILOMOE_TESTS_SERVER_LOCK_COUNT_H_
