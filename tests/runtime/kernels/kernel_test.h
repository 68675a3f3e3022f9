// What the kernel tests share: the fixture over instruction sets, guarded matrices, rounding bounds.
#ifndef HILOMOE_TESTS_RUNTIME_KERNELS_KERNEL_TEST_H_
#define HILOMOE_TESTS_RUNTIME_KERNELS_KERNEL_TEST_H_

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "runtime/kernels/kernels.h"

namespace hilomoe::kernels {

inline constexpr InstructionSet kInstructionSets[] = {InstructionSet::kPortable, InstructionSet::kAvx2,
                                                      InstructionSet::kAvx512, InstructionSet::kAvx512Vnni,
                                                      InstructionSet::kAvx512Bf16};

inline std::string InstructionSetName(const testing::TestParamInfo<InstructionSet>& info) {
  constexpr const char* kNames[] = {"portable", "avx2", "avx512", "avx512_vnni", "avx512_bf16"};
  return kNames[static_cast<int>(info.param)];
}

// The table of one instruction set; skipped where the build or the machine lacks it.
class KernelTest : public testing::TestWithParam<InstructionSet> {
 protected:
  void SetUp() override {
    int count = 0;
    const Kernels* const* all = AllKernels(&count);
    for (int i = 0; i < count; ++i) {
      if (all[i]->instruction_set == GetParam() && Supported(GetParam())) kernels_ = all[i];
    }
    if (kernels_ == nullptr) GTEST_SKIP() << "instruction set not in this build or not on this machine";
  }

  const Kernels* kernels_ = nullptr;
};

// A [rows, columns] matrix with a leading dimension that ends right before an unmapped page: a read behind the last
// element traps. Everything else in its mapping (the padding between rows, all before, and `behind` words after) holds
// a NaN, which is an absurd number as an int32_t too: a read of it shows in the result, a write in OnlyShapeWritten.
template <class T>
class GuardedMatrix {
  static_assert(sizeof(T) == sizeof(uint32_t));

 public:
  GuardedMatrix(int rows, int columns, int padding, int behind = 0)
      : rows_(rows), columns_(columns), leading_(std::max(1, columns + padding)) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t words = rows == 0 ? 0 : static_cast<size_t>(rows - 1) * leading_ + columns;
    const size_t used = (words + behind) * sizeof(T);
    bytes_ = (used / page + 2) * page;  // at least a page of sentinels in front
    map_ = static_cast<char*>(mmap(nullptr, bytes_ + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (map_ == MAP_FAILED || mprotect(map_ + bytes_, page, PROT_NONE) != 0) std::abort();
    mapped_ = bytes_ + page;
    for (size_t i = 0; i < bytes_; i += sizeof(T)) std::memcpy(map_ + i, &kSentinel, sizeof(T));
    data_ = reinterpret_cast<T*>(map_ + bytes_ - used);
  }
  GuardedMatrix(const GuardedMatrix&) = delete;
  GuardedMatrix& operator=(const GuardedMatrix&) = delete;
  ~GuardedMatrix() { munmap(map_, mapped_); }

  T* data() { return data_; }
  int leading() const { return leading_; }
  T* row(int r) { return data_ + static_cast<ptrdiff_t>(r) * leading_; }
  T& at(int r, int c) { return row(r)[c]; }

  template <class F>
  GuardedMatrix& Fill(F value) {
    for (int r = 0; r < rows_; ++r) {
      for (int c = 0; c < columns_; ++c) at(r, c) = value();
    }
    return *this;
  }

  bool OnlyShapeWritten() {
    const char* first = reinterpret_cast<const char*>(data_);
    for (size_t i = 0; i < bytes_; i += sizeof(T)) {
      const ptrdiff_t word = (map_ + i - first) / static_cast<ptrdiff_t>(sizeof(T));
      const bool inside = word >= 0 && word / leading_ < rows_ && word % leading_ < columns_;
      if (!inside && std::memcmp(map_ + i, &kSentinel, sizeof(T)) != 0) return false;
    }
    return true;
  }

  bool operator==(GuardedMatrix& other) {
    for (int r = 0; r < rows_; ++r) {
      if (std::memcmp(row(r), other.row(r), columns_ * sizeof(T)) != 0) return false;
    }
    return true;
  }

 private:
  static constexpr uint32_t kSentinel = 0x7fc0dead;

  int rows_;
  int columns_;
  int leading_;
  size_t bytes_;
  size_t mapped_;
  char* map_;
  T* data_;
};

using Matrix = GuardedMatrix<float>;
using IndexMatrix = GuardedMatrix<int32_t>;

// Sentinels behind an output; odd, so that the data are misaligned for every vector width.
inline constexpr int kBehind = 19;

inline constexpr double kRoundoff = 0x1p-24;  // u, of float

// Higham's gamma: m roundings multiply a term by at most 1 + gamma(m).
inline double Gamma(int m) { return m * kRoundoff / (1 - m * kRoundoff); }

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  float Normal() { return normal_(engine_); }
  float Uniform() { return static_cast<float>(engine_()) * 0x1p-31f - 1; }  // in [-1, 1]
  int Below(int n) { return static_cast<int>(engine_() % static_cast<uint32_t>(n)); }
  float Integer(int magnitude) { return static_cast<float>(Below(2 * magnitude + 1) - magnitude); }

 private:
  std::mt19937 engine_;
  std::normal_distribution<float> normal_;
};

}  // namespace hilomoe::kernels

#endif  // HILOMOE_TESTS_RUNTIME_KERNELS_KERNEL_TEST_H_
