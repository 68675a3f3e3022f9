#include "tests/runtime/allocation_count.h"

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

std::atomic<uint64_t> count{0};
thread_local uint64_t count_of_this_thread = 0;

void* Allocate(size_t size, size_t alignment) {
  count.fetch_add(1, std::memory_order_relaxed);
  ++count_of_this_thread;
  void* memory = nullptr;
  if (posix_memalign(&memory, alignment, size == 0 ? 1 : size) != 0) throw std::bad_alloc();
  return memory;
}

constexpr size_t kDefault = alignof(std::max_align_t);

}  // namespace

uint64_t hilomoe::Allocations() { return count; }
uint64_t hilomoe::AllocationsOfThisThread() { return count_of_this_thread; }

// NOLINTBEGIN(misc-new-delete-overloads)
void* operator new(size_t size) { return Allocate(size, kDefault); }
void* operator new[](size_t size) { return Allocate(size, kDefault); }
void* operator new(size_t size, std::align_val_t alignment) { return Allocate(size, static_cast<size_t>(alignment)); }
void* operator new[](size_t size, std::align_val_t alignment) { return Allocate(size, static_cast<size_t>(alignment)); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }
// NOLINTEND(misc-new-delete-overloads)
