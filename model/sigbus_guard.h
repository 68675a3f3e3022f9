// Keeps the process alive when a mapped file loses pages.
#ifndef HILOMOE_MODEL_SIGBUS_GUARD_H_
#define HILOMOE_MODEL_SIGBUS_GUARD_H_

#include <cstddef>

namespace hilomoe {

// While it exists, a read of [begin, begin + bytes) that the kernel answers with SIGBUS - the file was truncated, the
// disk or the memory behind it failed - gives zeros instead of ending the process: the whole range is replaced by
// zeros at once, and poisoned() is true before any thread can have read one of them. A SIGBUS anywhere else does what
// it did before the first guard was made.
//
// `begin` is the start of a mapping, `bytes` its length. To be destroyed before the mapping goes, when nobody reads it
// any more. poisoned(): any thread.
class SigbusGuard {
 public:
  SigbusGuard(void* begin, size_t bytes);
  ~SigbusGuard();
  SigbusGuard(const SigbusGuard&) = delete;
  SigbusGuard& operator=(const SigbusGuard&) = delete;

  bool poisoned() const;

  struct Range;

 private:
  Range* range_;
};

}  // namespace hilomoe

#endif  // HILOMOE_MODEL_SIGBUS_GUARD_H_
