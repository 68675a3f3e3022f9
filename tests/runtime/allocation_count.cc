#include "tests/runtime/allocation_count.h"

#include <dlfcn.h>

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>

namespace {

std::atomic<uint64_t> ours{0}, onednns{0};

void* Allocate(size_t size, size_t alignment, const void* caller) {
  Dl_info library{};
  const bool onednn = dladdr(caller, &library) != 0 && library.dli_fname != nullptr &&
                      std::strstr(library.dli_fname, "libdnnl") != nullptr;
  (onednn ? onednns : ours).fetch_add(1, std::memory_order_relaxed);
  void* memory = nullptr;
  if (posix_memalign(&memory, alignment, size == 0 ? 1 : size) != 0) throw std::bad_alloc();
  return memory;
}

constexpr size_t kDefault = alignof(std::max_align_t);

}  // namespace

hilomoe::AllocationCount hilomoe::Allocations() { return {ours, onednns}; }

// NOLINTBEGIN(misc-new-delete-overloads)
void* operator new(size_t size) { return Allocate(size, kDefault, __builtin_return_address(0)); }
void* operator new[](size_t size) { return Allocate(size, kDefault, __builtin_return_address(0)); }
void* operator new(size_t size, std::align_val_t alignment) {
  return Allocate(size, static_cast<size_t>(alignment), __builtin_return_address(0));
}
void* operator new[](size_t size, std::align_val_t alignment) {
  return Allocate(size, static_cast<size_t>(alignment), __builtin_return_address(0));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }
// NOLINTEND(misc-new-delete-overloads)
