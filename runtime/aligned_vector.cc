#include "runtime/aligned_vector.h"

#include <sys/mman.h>

#include <new>

namespace hilomoe {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

size_t Alignment(size_t bytes) { return bytes >= kHugePage / 4 ? kHugePage : kCacheLine; }

}  // namespace

void* AllocateLines(size_t bytes) {
  const size_t alignment = Alignment(bytes);
  // Huge pages whole: nobody else's memory shares the last one.
  const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  void* const lines = ::operator new(rounded, std::align_val_t(alignment));
  if (alignment == kHugePage) ::madvise(lines, rounded, MADV_HUGEPAGE);  // a wish
  return lines;
}

void FreeLines(void* lines, size_t bytes) { ::operator delete(lines, std::align_val_t(Alignment(bytes))); }

}  // namespace hilomoe
