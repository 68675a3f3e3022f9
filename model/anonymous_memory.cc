#include "model/anonymous_memory.h"

#include <sanitizer/asan_interface.h>
#include <sys/mman.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace hilomoe {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

size_t WholePages(size_t size) { return (size + kHugePage - 1) / kHugePage * kHugePage; }

}  // namespace

void Unmap(std::byte* data, size_t bytes) {
  constexpr size_t kPiece = 16 * kHugePage;
  for (size_t done = 0; done < bytes; done += kPiece) ::munmap(data + done, std::min(kPiece, bytes - done));
}

absl::StatusOr<AnonymousMemory> AnonymousMemory::Allocate(size_t size, size_t capacity) {
  AnonymousMemory memory;
  if (size == 0) return memory;
  void* data = MAP_FAILED;
  for (const size_t bytes : {std::max(size, capacity), size}) {
    memory.mapped_ = WholePages(bytes);
    data = ::mmap(nullptr, memory.mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data != MAP_FAILED) break;
  }
  if (data == MAP_FAILED) return absl::ResourceExhaustedError(absl::StrCat("no memory for ", size, " bytes"));
  // Not for a small one: its first byte would cost zeroing all of a huge page.
  if (size >= kHugePage) ::madvise(data, memory.mapped_, MADV_HUGEPAGE);
  memory.data_ = static_cast<std::byte*>(data);
  memory.size_ = size;
  // Only heap and stack have bounds that address sanitizer knows by itself. Nothing without it, as are the other ones.
  ASAN_POISON_MEMORY_REGION(memory.data_ + size, memory.mapped_ - size);
  return memory;
}

AnonymousMemory::AnonymousMemory(AnonymousMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      mapped_(std::exchange(other.mapped_, 0)) {}

AnonymousMemory& AnonymousMemory::operator=(AnonymousMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(mapped_, other.mapped_);
  return *this;
}

AnonymousMemory::~AnonymousMemory() {
  if (data_ == nullptr) return;
  ASAN_UNPOISON_MEMORY_REGION(data_, mapped_);
  Unmap(data_, mapped_);
}

void AnonymousMemory::Resize(size_t size) {
  const size_t end = WholePages(size), old_end = WholePages(size_);
  if (end < old_end) ::madvise(data_ + end, old_end - end, MADV_DONTNEED);
  size_ = size;
  ASAN_UNPOISON_MEMORY_REGION(data_, size);
  ASAN_POISON_MEMORY_REGION(data_ + size, mapped_ - size);
}

absl::StatusOr<AnonymousMemory> SpareMemory::Take(size_t size) {
  AnonymousMemory memory = Exchange({});
  if (memory.size() > 0 && size > 0 && size <= memory.capacity()) {
    memory.Resize(size);
    return memory;
  }
  memory = AnonymousMemory();  // moves: what was kept goes with the temporary, before as much is asked for
  return AnonymousMemory::Allocate(size, size + size / 4);
}

void SpareMemory::Give(AnonymousMemory memory) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (memory.size() > kept_.size()) std::swap(kept_, memory);  // the other is freed once the lock is
}

size_t SpareMemory::bytes() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return kept_.size();
}

AnonymousMemory SpareMemory::Exchange(AnonymousMemory memory) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::swap(kept_, memory);
  return memory;
}

}  // namespace hilomoe
