// The passes over activations between the products: batch norm, ReLU and dropout, forward and backward, each as few
// times through memory as its sums allow. T is float (compiled for several instruction sets, chosen when the program
// starts) or double. All work on `rows` whole rows of row-major matrices, n columns wide.
#ifndef HILOMOE_TOOLS_TRAIN_ELEMENTWISE_H_
#define HILOMOE_TOOLS_TRAIN_ELEMENTWISE_H_

#include <cstddef>
#include <cstdint>

#include "tools/train/random.h"

namespace hilomoe {

// sum[c] += z[r, c], squared[c] += z[r, c]^2. Summed in double: a common mean costs no digits that a float had.
void AddColumnSums(size_t rows, size_t n, const float* z, size_t ldz, double* sum, double* squared);
void AddColumnSums(size_t rows, size_t n, const double* z, size_t ldz, double* sum, double* squared);

// out[r, c] = dropout(relu(z[r, c] * scale[c] + shift[c])), relu and dropout if asked for; out [rows, n]. `element` is
// the number of out's first element in the dropout's mask.
void Normalise(size_t rows, size_t n, const float* z, size_t ldz, const float* scale, const float* shift, bool relu,
               const DropoutMask& dropout, size_t element, float* out);
void Normalise(size_t rows, size_t n, const double* z, size_t ldz, const double* scale, const double* shift, bool relu,
               const DropoutMask& dropout, size_t element, double* out);

// x[i] *= the dropout's factor, i of `count` elements from `element` on.
void ApplyDropout(size_t count, const DropoutMask& dropout, size_t element, float* x);
void ApplyDropout(size_t count, const DropoutMask& dropout, size_t element, double* x);

// dz = out > 0 ? factor * dout : 0: through ReLU and dropout, whose output is positive exactly where both let pass.
void ReluBackward(size_t rows, size_t n, const float* out, const float* dout, float factor, float* dz, size_t lddz);
void ReluBackward(size_t rows, size_t n, const double* out, const double* dout, double factor, double* dz, size_t lddz);

// The pass above and the one below in one: dz [rows, n] (ld, as z), out and dout [rows, n] without gaps.
void ReluBackwardSums(size_t rows, size_t n, const float* out, const float* dout, float factor, const float* z,
                      float* dz, size_t ld, const float* centre, const float* inverse_deviation, double* sum,
                      double* sum_normalised);
void ReluBackwardSums(size_t rows, size_t n, const double* out, const double* dout, double factor, const double* z,
                      double* dz, size_t ld, const double* centre, const double* inverse_deviation, double* sum,
                      double* sum_normalised);

// sum[c] += dz[r, c], sum_normalised[c] += dz[r, c] (z[r, c] - centre[c]) inverse_deviation[c].
void AddBackwardSums(size_t rows, size_t n, const float* z, const float* dz, size_t ld, const float* centre,
                     const float* inverse_deviation, double* sum, double* sum_normalised);
void AddBackwardSums(size_t rows, size_t n, const double* z, const double* dz, size_t ld, const double* centre,
                     const double* inverse_deviation, double* sum, double* sum_normalised);

// dz <- scale (dz - a - (z - centre) b): batch norm's gradient, a = mean(dn), b = mean(dn n) / deviation.
void NormaliseBackward(size_t rows, size_t n, const float* z, size_t ld, const float* scale, const float* centre,
                       const float* a, const float* b, float* dz);
void NormaliseBackward(size_t rows, size_t n, const double* z, size_t ld, const double* scale, const double* centre,
                       const double* a, const double* b, double* dz);

// x[i] <- e^x[i] for x <= 0; the float one to a relative 2e-7, 0 below ln 2^-126.
void Exponentials(size_t count, float* x);
void Exponentials(size_t count, double* x);

// x[i] <- ln x[i] of normal numbers; the float one to a relative 3e-7, or 3e-7 where x is near 1.
void Logarithms(size_t count, float* x);
void Logarithms(size_t count, double* x);

// out[r] = sum_d x[r, d]^2
void SquaredNorms(size_t rows, size_t n, const float* x, size_t ldx, float* out);
void SquaredNorms(size_t rows, size_t n, const double* x, size_t ldx, double* out);

// out[r] += sum_d x[r, d] w[d]
void AddDotProducts(size_t rows, size_t n, const float* x, size_t ldx, const float* w, float* out);
void AddDotProducts(size_t rows, size_t n, const double* x, size_t ldx, const double* w, double* out);

// out[r] = table[ids[r]], rows of n numbers; out with leading dimension ldo.
void GatherEmbeddings(size_t rows, size_t n, const float* table, const uint32_t* ids, float* out, size_t ldo);
void GatherEmbeddings(size_t rows, size_t n, const double* table, const uint32_t* ids, double* out, size_t ldo);

// Adam on `count` numbers; see optimizer.h.
struct AdamUpdate {
  float rate, beta1, beta2, epsilon;
  float scale;                     // of the gradient: clipping
  float correction1, correction2;  // 1 / (1 - beta^t)
  float l2;
};
// gradient null: 0.
void UpdateAdam(size_t count, const AdamUpdate& update, const float* gradient, float* m, float* v, float* weight);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_ELEMENTWISE_H_
