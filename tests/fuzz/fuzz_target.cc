#include "tests/fuzz/fuzz_target.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace hilomoe {

void Require(bool holds, std::string_view what) {
  if (holds) return;
  std::fprintf(stderr, "finding: %.*s\n", static_cast<int>(what.size()), what.data());
  std::abort();
}

MemoryFile::MemoryFile(const void* data, size_t size) : descriptor_(::memfd_create("input", MFD_CLOEXEC)) {
  Require(descriptor_ >= 0 && ::write(descriptor_, data, size) == static_cast<ssize_t>(size),
          "no memory for the input's file");
  path_ = "/proc/self/fd/" + std::to_string(descriptor_);
}

MemoryFile::~MemoryFile() { ::close(descriptor_); }

}  // namespace hilomoe
