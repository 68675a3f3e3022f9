// Anonymous memory in transparent huge pages where the kernel gives them, as models are held.
#ifndef HILOMOE_TOOLS_BENCH_MACHINE_HUGE_BUFFER_H_
#define HILOMOE_TOOLS_BENCH_MACHINE_HUGE_BUFFER_H_

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>

namespace hilomoe::bench {

// Written once, so that every page is there. Throws std::bad_alloc, as a vector would.
class HugeBuffer {
 public:
  explicit HugeBuffer(size_t bytes) : bytes_((bytes + kPage - 1) / kPage * kPage), mapped_(bytes_ + kPage) {
    map_ = ::mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map_ == MAP_FAILED) throw std::bad_alloc();
    const uintptr_t address = reinterpret_cast<uintptr_t>(map_);
    data_ = static_cast<char*>(map_) + (kPage - address % kPage) % kPage;
    ::madvise(data_, bytes_, MADV_HUGEPAGE);  // a wish
    std::memset(data_, 1, bytes_);
  }
  HugeBuffer(const HugeBuffer&) = delete;
  HugeBuffer& operator=(const HugeBuffer&) = delete;
  ~HugeBuffer() { ::munmap(map_, mapped_); }

  size_t size() const { return bytes_; }
  uint64_t* words() const { return reinterpret_cast<uint64_t*>(data_); }

 private:
  static constexpr size_t kPage = size_t{2} << 20;

  size_t bytes_, mapped_;
  void* map_;
  char* data_;
};

}  // namespace hilomoe::bench

#endif  // HILOMOE_TOOLS_BENCH_MACHINE_HUGE_BUFFER_H_
