// That the generator's memory does not grow with the log. A binary of its own, because it counts what `new` gives.
#include <gtest/gtest.h>
#include <malloc.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <new>
#include <string>

#include "tools/train/generate.h"

namespace {
size_t live_bytes = 0;
size_t peak_bytes = 0;
}  // namespace

// Not inlined: the compiler would take free() for a mistake where it sees who called new.
[[gnu::noinline]] void* operator new(size_t size) {
  void* const block = std::malloc(size);
  if (block == nullptr) throw std::bad_alloc();
  live_bytes += ::malloc_usable_size(block);
  peak_bytes = std::max(peak_bytes, live_bytes);
  return block;
}
[[gnu::noinline]] void operator delete(void* block) noexcept {
  if (block != nullptr) live_bytes -= ::malloc_usable_size(block);
  std::free(block);
}
[[gnu::noinline]] void operator delete(void* block, size_t) noexcept { operator delete(block); }

namespace hilomoe {
namespace {

size_t PeakBytes(const std::string& folder, int64_t rows) {
  GenerateOptions options;
  options.output_dir = folder;
  options.compression = Compression::kNone;
  options.rows = rows;
  options.users = 200;
  options.ceiling_rows = 2000;
  GenerateReport report;
  peak_bytes = live_bytes;
  const size_t before = live_bytes;
  EXPECT_TRUE(GenerateLog(options, &report).ok());
  return peak_bytes - before;
}

TEST(GenerateMemoryTest, IsTheSameForAnyNumberOfRows) {
  std::string folder = (std::filesystem::temp_directory_path() / "generate_memory_test.XXXXXX").string();
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  // The smaller log fills all histories, ceilings and file buffers; strings that hold the longest request so far may
  // yet double. A byte a row would exceed the bound.
  const size_t small = PeakBytes(folder, 200'000);
  const size_t large = PeakBytes(folder, 900'000);
  std::filesystem::remove_all(folder);
  EXPECT_GT(small, 200'000u) << "nothing was counted";
  EXPECT_LT(large, small + 64 * 1024);
}

}  // namespace
}  // namespace hilomoe
