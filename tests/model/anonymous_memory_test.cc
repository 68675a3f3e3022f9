// Memory from the kernel, and from files that are gone.
#include "model/anonymous_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "model/file_bytes.h"
#include "tests/model/test_files.h"

namespace hilomoe {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

size_t ResidentBytes(const AnonymousMemory& memory) {
  const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> resident(memory.capacity() / page);
  EXPECT_EQ(::mincore(memory.data(), memory.capacity(), resident.data()), 0);
  size_t pages = 0;
  for (const unsigned char one : resident) pages += one & 1;
  return pages * page;
}

TEST(AnonymousMemoryTest, SetsAsideAddressSpaceAlone) {
  auto memory = AnonymousMemory::Allocate(3 * kHugePage - 5, 6 * kHugePage);
  ASSERT_TRUE(memory.ok()) << memory.status();
  EXPECT_EQ(memory->size(), 3 * kHugePage - 5);
  EXPECT_EQ(memory->capacity(), 6 * kHugePage);
  for (size_t i = 0; i < memory->size(); i += 4093) EXPECT_EQ(static_cast<int>(memory->data()[i]), 0);
  std::memset(memory->data(), 1, memory->size());
  EXPECT_LE(ResidentBytes(*memory), 3 * kHugePage);
  memory->Resize(6 * kHugePage);
  std::memset(memory->data() + 3 * kHugePage, 2, 3 * kHugePage);
  EXPECT_EQ(static_cast<int>(memory->data()[3 * kHugePage - 6]), 1);
  // What is behind the new end goes back.
  memory->Resize(kHugePage + 1);
  EXPECT_LE(ResidentBytes(*memory), 2 * kHugePage);
  EXPECT_EQ(static_cast<int>(memory->data()[kHugePage]), 1);
}

TEST(SpareMemoryTest, ServesWhatFitsFromWhatWasGiven) {
  SpareMemory spare;
  auto first = spare.Take(4 * kHugePage);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(spare.bytes(), 0);
  const std::byte* const place = first->data();
  std::memset(first->data(), 1, first->size());
  spare.Give(*std::move(first));
  EXPECT_EQ(spare.bytes(), 4 * kHugePage);
  spare.Give(*AnonymousMemory::Allocate(kHugePage));  // the smaller one is not kept
  EXPECT_EQ(spare.bytes(), 4 * kHugePage);
  for (const size_t size : {5 * kHugePage, 3 * kHugePage}) {  // a quarter larger fits
    auto again = spare.Take(size);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(again->data(), place);
    EXPECT_EQ(again->size(), size);
    EXPECT_EQ(spare.bytes(), 0);
    std::memset(again->data(), 2, size);
    spare.Give(*std::move(again));
  }
  const auto larger = spare.Take(6 * kHugePage);
  ASSERT_TRUE(larger.ok()) << larger.status();
  EXPECT_EQ(larger->size(), 6 * kHugePage);
  EXPECT_EQ(spare.bytes(), 0);
  EXPECT_EQ(spare.Take(0)->size(), 0);
}

TEST(SpareMemoryTest, TakesFilesThatAreGone) {
  const TestDirectory directory;
  WriteBytes(directory / "a", std::string(3 * kHugePage, 'a'));
  WriteBytes(directory / "b", std::string(2 * kHugePage + 7, 'b'));
  auto spare = std::make_shared<SpareMemory>();
  const auto read = [&](const char* name) {
    auto bytes = FileBytes::Open(directory / name, FileMemory::kCopy, spare);
    EXPECT_TRUE(bytes.ok() && bytes->Load(0, bytes->size()).ok() && bytes->FinishLoading().ok());
    return *std::move(bytes);
  };
  const std::byte* place;
  {
    const FileBytes a = read("a");
    place = a.data();
    EXPECT_EQ(spare->bytes(), 0);
  }
  EXPECT_EQ(spare->bytes(), 3 * kHugePage);
  {
    const FileBytes b = read("b");
    EXPECT_EQ(b.data(), place);
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(b.data()), b.size()), std::string(b.size(), 'b'));
    spare.reset();  // nobody is left to give it to
  }
}

}  // namespace
}  // namespace hilomoe
