#include "tests/fuzz/fuzz_target.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>

namespace hilomoe {

void Require(bool holds, std::string_view what) {
  if (holds) return;
  std::fprintf(stderr, "finding: %.*s\n", static_cast<int>(what.size()), what.data());
  std::abort();
}

const std::string& ScratchDirectory() {
  static const std::string& directory = *new std::string([] {
    const bool memory = std::filesystem::exists("/dev/shm");
    std::string pattern = memory ? "/dev/shm/hilomoe_fuzz_XXXXXX" : "/tmp/hilomoe_fuzz_XXXXXX";
    Require(::mkdtemp(pattern.data()) != nullptr, "no directory for scratch files");
    std::atexit([] { std::filesystem::remove_all(ScratchDirectory()); });
    return pattern;
  }());
  return directory;
}

MemoryFile::MemoryFile(const void* data, size_t size) : descriptor_(::memfd_create("input", MFD_CLOEXEC)) {
  Require(descriptor_ >= 0 && ::write(descriptor_, data, size) == static_cast<ssize_t>(size),
          "no memory for the input's file");
  path_ = "/proc/self/fd/" + std::to_string(descriptor_);
}

MemoryFile::~MemoryFile() { ::close(descriptor_); }

}  // namespace hilomoe
