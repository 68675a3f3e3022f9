// The arithmetic of routing on kLanes rows at once: matrices are [n, kLanes], a row of the batch is a lane, so that
// every loop runs over whole vectors whatever K is. T is float (compiled for several instruction sets, chosen when the
// program starts) or double. No argument overlaps another.
#ifndef HILOMOE_TOOLS_TRAIN_ROUTING_LANES_H_
#define HILOMOE_TOOLS_TRAIN_ROUTING_LANES_H_

#include <cstddef>

namespace hilomoe {

inline constexpr size_t kLanes = 16;

// out[i, r] = from[r, i] of `rows` <= kLanes rows; 0 in the lanes beyond.
void RowsToLanes(size_t rows, size_t n, const float* from, size_t ld, float* out);
void RowsToLanes(size_t rows, size_t n, const double* from, size_t ld, double* out);
// out[r, i] = from[i, r].
void LanesToRows(size_t rows, size_t n, const float* from, float* out, size_t ld);
void LanesToRows(size_t rows, size_t n, const double* from, double* out, size_t ld);

// out[i] += sum_j m[i * row_step + j * column_step] x[j], i < n, j < k: n and k numbers a lane.
void AddProductLanes(size_t n, size_t k, const float* m, size_t row_step, size_t column_step, const float* x,
                     float* out);
void AddProductLanes(size_t n, size_t k, const double* m, size_t row_step, size_t column_step, const double* x,
                     double* out);

// raw[i] += scale * a[i], z[i] = tau raw[i] + c[i]; scale [kLanes], c [K].
void LogitLanes(size_t K, const float* scale, const float* a, float tau, const float* c, float* raw, float* z);
void LogitLanes(size_t K, const double* scale, const double* a, double tau, const double* c, double* raw, double* z);

// s = softmax(z), total [kLanes] = ln sum e^z.
void SoftmaxLanes(size_t K, const float* z, float* s, float* total);
void SoftmaxLanes(size_t K, const double* z, double* s, double* total);

// out = s (ds - sum_j s_j ds_j): from the gradient of a softmax's output to that of its input.
void SoftmaxBackwardLanes(size_t K, const float* s, const float* ds, float* out);
void SoftmaxBackwardLanes(size_t K, const double* s, const double* ds, double* out);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_ROUTING_LANES_H_
