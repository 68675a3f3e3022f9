// Memory of models: from the kernel, and from models that are gone.
#ifndef HILOMOE_MODEL_ANONYMOUS_MEMORY_H_
#define HILOMOE_MODEL_ANONYMOUS_MEMORY_H_

#include <cstddef>
#include <mutex>

#include "absl/status/statusor.h"

namespace hilomoe {

// Unmaps in pieces: other threads of the process that map or unmap something, as allocators do, wait for each of them.
void Unmap(std::byte* data, size_t bytes);

// Page-aligned, in transparent huge pages where the kernel gives them.
class AnonymousMemory {
 public:
  // Zeros. Of `capacity`, when that is more, address space for Resize is set aside where there is any, no memory.
  // RESOURCE_EXHAUSTED when the kernel refuses.
  static absl::StatusOr<AnonymousMemory> Allocate(size_t size, size_t capacity = 0);
  AnonymousMemory() = default;
  AnonymousMemory(AnonymousMemory&& other) noexcept;
  AnonymousMemory& operator=(AnonymousMemory&& other) noexcept;
  ~AnonymousMemory();

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  size_t capacity() const { return mapped_; }
  // size <= capacity(). Bytes that were there stay, memory behind them goes back to the kernel.
  void Resize(size_t size);

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  size_t mapped_ = 0;
};

// Keeps the memory of one file that is gone for the next one, which then waits neither for the kernel to clear pages
// nor, on a virtual machine, for its host to find them: meanwhile the machine's other threads may stand still. The
// next file may be a quarter larger. Thread-safe.
class SpareMemory {
 public:
  // What is kept, with bytes of any value, if it is large enough; else that is freed, and what is returned new. Either
  // way nothing is kept afterwards.
  absl::StatusOr<AnonymousMemory> Take(size_t size);
  // Keeps `memory`, or what is kept already if that is larger.
  void Give(AnonymousMemory memory);
  // What is kept, if anything.
  AnonymousMemory Release() { return Exchange({}); }
  size_t bytes() const;

 private:
  AnonymousMemory Exchange(AnonymousMemory memory);

  mutable std::mutex mutex_;
  AnonymousMemory kept_;  // guarded by mutex_
};

}  // namespace hilomoe

#endif  // HILOMOE_MODEL_ANONYMOUS_MEMORY_H_
