// Vectors of what kernels read and write: their first cell begins a cache line, so that where rows are a multiple of 64
// bytes no 512-bit access touches two lines. (malloc aligns to 16, and large blocks always 16 behind a line's begin.)
#ifndef HILOMOE_RUNTIME_ALIGNED_VECTOR_H_
#define HILOMOE_RUNTIME_ALIGNED_VECTOR_H_

#include <cstddef>
#include <vector>

namespace hilomoe {

inline constexpr size_t kCacheLine = 64;

// n rounded up to a multiple of a cache line's floats: from one row to the next, where all are to begin a line.
constexpr size_t WholeLines(size_t n) {
  constexpr size_t kFloats = kCacheLine / sizeof(float);
  return (n + kFloats - 1) / kFloats * kFloats;
}

// `bytes` from a line's begin on; from 512 KiB on whole huge pages, where the system has them. Throws std::bad_alloc.
void* AllocateLines(size_t bytes);
void FreeLines(void* lines, size_t bytes);

template <class T>
struct LineAllocator {
  using value_type = T;

  LineAllocator() = default;
  template <class U>
  explicit LineAllocator(const LineAllocator<U>& /*other*/) {}
  T* allocate(size_t n) { return static_cast<T*>(AllocateLines(n * sizeof(T))); }
  void deallocate(T* lines, size_t n) { FreeLines(lines, n * sizeof(T)); }
  friend bool operator==(const LineAllocator&, const LineAllocator&) { return true; }
  friend bool operator!=(const LineAllocator&, const LineAllocator&) { return false; }
};

template <class T>
using AlignedVector = std::vector<T, LineAllocator<T>>;

}  // namespace hilomoe

#endif  // HILOMOE_RUNTIME_ALIGNED_VECTOR_H_
