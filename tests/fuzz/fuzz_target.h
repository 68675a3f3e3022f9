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
