// Whatever the pieces, the checksum is XXH3-64 as the format says.
#include "model/checksum.h"

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "model/checksum_kernels.h"

#define XXH_INLINE_ALL
#include "xxhash.h"

namespace hilomoe {
namespace {

TEST(ChecksumTest, IsXxh3OfAllPieces) {
  std::mt19937 engine(5);
  std::string bytes(3000, '\0');
  for (char& byte : bytes) byte = static_cast<char>(engine());
  Checksum checksum;
  for (const size_t size : {0, 1, 16, 17, 240, 241, 1024, 2999}) {
    EXPECT_EQ(ChecksumOf(bytes.data(), size), XXH3_64bits(bytes.data(), size)) << size;
    for (const size_t piece : {1, 63, 64, 256, 1000}) {
      checksum.Reset();
      for (size_t i = 0; i < size; i += piece) checksum.Add(&bytes[i], std::min(piece, size - i));
      EXPECT_EQ(checksum.value(), XXH3_64bits(bytes.data(), size)) << size << " in pieces of " << piece;
    }
  }
  EXPECT_EQ(XXH3_64bits("", 0), 0x2D06800538D394C2) << "the published value";
}

// Processors without AVX2 verify what others have written.
TEST(ChecksumTest, EveryKernelGivesTheSame) {
  std::mt19937 engine(6);
  std::string bytes(5000, '\0');
  for (char& byte : bytes) byte = static_cast<char>(engine());
  std::vector<void (*)(void*, const void*, size_t)> kernels = {internal::AddToChecksum};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) kernels.push_back(internal::AddToChecksumAvx2);
#endif
  for (const auto kernel : kernels) {
    for (const size_t piece : {1, 64, 255, 2048, 5000}) {
      XXH3_state_t* const state = XXH3_createState();
      XXH3_64bits_reset(state);
      for (size_t i = 0; i < bytes.size(); i += piece) kernel(state, &bytes[i], std::min(piece, bytes.size() - i));
      EXPECT_EQ(XXH3_64bits_digest(state), XXH3_64bits(bytes.data(), bytes.size())) << "in pieces of " << piece;
      XXH3_freeState(state);
    }
  }
}

}  // namespace
}  // namespace hilomoe
