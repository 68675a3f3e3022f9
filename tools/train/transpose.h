// Transposing small numbers four by four in registers.
#ifndef HILOMOE_TOOLS_TRAIN_TRANSPOSE_H_
#define HILOMOE_TOOLS_TRAIN_TRANSPOSE_H_

#include <cstddef>

#include "tools/train/target_clones.h"

namespace hilomoe {

// to[c, r] = from[r, c], r < rows, c < columns; no overlap. T is a number of four or eight bytes.
template <typename T>
HILOMOE_INLINE void Transpose4(size_t rows, size_t columns, const T* from, size_t ld, T* to, size_t ldt) {
  using Four __attribute__((vector_size(4 * sizeof(T)), aligned(sizeof(T)), may_alias)) = T;
  const size_t whole_rows = rows / 4 * 4, whole_columns = columns / 4 * 4;
  for (size_t r = 0; r < whole_rows; r += 4) {
    for (size_t c = 0; c < whole_columns; c += 4) {
      const T* p = from + r * ld + c;
      const auto row = [&](size_t i) -> const Four& { return *reinterpret_cast<const Four*>(p + i * ld); };
      const Four low01 = __builtin_shufflevector(row(0), row(1), 0, 4, 1, 5);
      const Four high01 = __builtin_shufflevector(row(0), row(1), 2, 6, 3, 7);
      const Four low23 = __builtin_shufflevector(row(2), row(3), 0, 4, 1, 5);
      const Four high23 = __builtin_shufflevector(row(2), row(3), 2, 6, 3, 7);
      T* q = to + c * ldt + r;
      const auto out = [&](size_t i) -> Four& { return *reinterpret_cast<Four*>(q + i * ldt); };
      out(0) = __builtin_shufflevector(low01, low23, 0, 1, 4, 5);
      out(1) = __builtin_shufflevector(low01, low23, 2, 3, 6, 7);
      out(2) = __builtin_shufflevector(high01, high23, 0, 1, 4, 5);
      out(3) = __builtin_shufflevector(high01, high23, 2, 3, 6, 7);
    }
    for (size_t c = whole_columns; c < columns; ++c) {
      for (size_t i = r; i < r + 4; ++i) to[c * ldt + i] = from[i * ld + c];
    }
  }
  for (size_t r = whole_rows; r < rows; ++r) {
    for (size_t c = 0; c < columns; ++c) to[c * ldt + r] = from[r * ld + c];
  }
}

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_TRANSPOSE_H_
