// Memory that was freed and that the C library keeps, which the kernel may need elsewhere.
#ifndef HILOMOE_SERVER_FREE_MEMORY_H_
#define HILOMOE_SERVER_FREE_MEMORY_H_

#include <cstddef>

namespace hilomoe {

// A burst, say of calls that are cancelled as soon as they are begun, makes gRPC allocate hundreds of megabytes; freed,
// they stay the process's, as a chunk that is in use lies behind them.
class FreeMemory {
 public:
  // Gives it back when there may be at least `most_bytes` of it. That holds up those who allocate meanwhile, so that it
  // should not be run at a low priority; most_bytes keeps it from happening at a steady load.
  explicit FreeMemory(size_t most_bytes) : most_bytes_(most_bytes) {}

  // Looks once, and takes each lock of the allocator for that. True: it gave memory back. One thread at a time.
  bool GiveBack();

 private:
  const size_t most_bytes_;
  size_t least_sum_ = 0;  // of free and resident bytes, since memory was given back
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_FREE_MEMORY_H_
