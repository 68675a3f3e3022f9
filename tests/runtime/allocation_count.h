// Replaces operator new in the binary it is linked into and counts its calls.
#ifndef HILOMOE_TESTS_RUNTIME_ALLOCATION_COUNT_H_
#define HILOMOE_TESTS_RUNTIME_ALLOCATION_COUNT_H_

#include <cstdint>

namespace hilomoe {

uint64_t Allocations();              // since the program started, of all threads
uint64_t AllocationsOfThisThread();  // since it started

}  // namespace hilomoe

#endif  // HILOMOE_TESTS_RUNTIME_ALLOCATION_COUNT_H_
