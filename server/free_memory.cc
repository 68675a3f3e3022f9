#include "server/free_memory.h"

#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

namespace hilomoe {
namespace {

size_t ResidentBytes() {
  static const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  std::ifstream file("/proc/self/statm");
  size_t all = 0, resident = 0;
  file >> all >> resident;
  return resident * page;
}

}  // namespace

bool FreeMemory::GiveBack() {
  // What has been given back still counts as free, and is no longer resident. The sum grows by what is freed, stays as
  // it is when that is used again, and grows when it is freed once more; by new memory, too, of which nothing can be
  // given back.
  const size_t free = ::mallinfo2().fordblks;
  const size_t sum = free + ResidentBytes();
  least_sum_ = std::min(least_sum_, sum);
  if (free < most_bytes_ || sum - least_sum_ < most_bytes_) return false;
  ::malloc_trim(0);
  least_sum_ = ::mallinfo2().fordblks + ResidentBytes();
  return true;
}

}  // namespace hilomoe
