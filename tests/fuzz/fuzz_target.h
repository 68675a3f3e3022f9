// What fuzz targets share. A target is a LLVMFuzzerTestOneInput, often with a LLVMFuzzerCustomMutator, in a file of its
// own.
#ifndef HILOMOE_TESTS_FUZZ_FUZZ_TARGET_H_
#define HILOMOE_TESTS_FUZZ_FUZZ_TARGET_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace hilomoe {

// Ends the program with `what`, which is a finding, unless `holds`.
void Require(bool holds, std::string_view what);

// A directory that goes away with the program; in memory, where there is such a file system, as what is written
// atomically is synced.
const std::string& ScratchDirectory();

// A file in memory, for readers that take a path.
class MemoryFile {
 public:
  MemoryFile(const void* data, size_t size);
  ~MemoryFile();
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  const std::string& path() const { return path_; }

 private:
  int descriptor_;
  std::string path_;
};

}  // namespace hilomoe

#endif  // HILOMOE_TESTS_FUZZ_FUZZ_TARGET_H_
