// The hot loops of a HiLoMoE block: products with packed weights, routing, rank-1 experts, norms, the head.
//
// One table of function pointers per instruction set, in its own translation unit with its own compiler flags; the
// table is chosen once, when a model is loaded. This header includes nothing but <cstddef> and <cstdint>, so that no
// inline function of anyone else is compiled with those flags. B = rows, L = layers, K = experts of a layer, k = kept
// ones (0 = dense), O = width. Matrices are float32, row-major, with a leading dimension (`ld...`, in floats), where
// nothing else is said; no alignment is asked for but of packed weights; nothing is read or written beyond the stated
// shapes; inputs and outputs do not overlap unless said. Functions are pure: any thread, at once. Preconditions are the
// caller's; kernels cannot fail.
//
// Within one table the result of a row has the same bits wherever the row stands in the batch and whatever its
// neighbours hold, so a batch may be split anywhere. Tables differ from one another by rounding.
#ifndef HILOMOE_RUNTIME_KERNELS_KERNELS_H_
#define HILOMOE_RUNTIME_KERNELS_KERNELS_H_

#include <cstddef>
#include <cstdint>

namespace hilomoe::kernels {

// Instruction sets, best last. A set is supported when CPUID and the operating system's saved state (XCR0) say so.
// kAvx512Bf16 includes kAvx512Vnni, which no CPU with the former lacks.
enum class InstructionSet { kPortable, kAvx2, kAvx512, kAvx512Vnni, kAvx512Bf16 };

// kRelu is x < 0 ? 0 : x: a NaN stays NaN, so that a broken row shows in its score.
enum class Activation { kIdentity, kRelu };

// Routing of one block: the constants of the formula at Kernels::route_dense; L*K <= kMaxStackedExperts.
struct Routing {
  int layers;                 // L >= 1
  int experts;                // K >= 1, <= kMaxExperts
  int top_k;                  // 0 = dense, else 2 <= k < K
  float query_scale;          // alpha
  const float* logit_scale;   // tau  [L]
  const float* logit_offset;  // c    [L*K]
  const float* gram;          // G    [L*K, L*K], row j*K+b, column l*K+a = V_l[a] . V_j[b]; only j < l is read
};

// What the operands of a product are rounded to. Sums are float32, of kInt8 int32, which is exact.
enum class Precision { kFloat32, kBfloat16, kInt8 };

// On functions that are no static ones: a unit with flags of its own is never to keep a copy that others would call.
#define HILOMOE_INLINED __attribute__((always_inline)) constexpr

// Columns of a product that share a cell of four bytes.
static constexpr int ColumnsPerCell(Precision precision) {
  return precision == Precision::kFloat32 ? 1 : precision == Precision::kBfloat16 ? 2 : 4;
}

inline constexpr int kPanelOutputs = 16;
// Neighbouring panels that lie step by step: one row takes them together, with as many chains of multiply-adds under
// way.
inline constexpr int kGroupPanels = 8;

// Panels [first, first + count) of a weight.
struct PanelGroup {
  int first, count;

  // From a step to the next one, in cells.
  HILOMOE_INLINED size_t stride() const { return static_cast<size_t>(count) * size_t{kPanelOutputs}; }
};

// How W [n, k] is packed, for every instruction set alike. Cells of four bytes hold 1, 2 or 4 neighbouring columns of a
// row (float32, bfloat16, int8); a panel is 16 rows, its cells of the same columns a line of 64 bytes. Some
// neighbouring panels are a group:
//   [group][step][panel of the group][16]
// A step is a cell, with zeros beyond n and k; of kInt8 two more follow, what its sums become numbers by. So one row
// reads all that it needs in one stream, which caches give up to 1.6 times as fast as streams side by side.
struct PackedLayout {
  // columns: k.
  HILOMOE_INLINED PackedLayout(Precision precision_, int outputs_, int columns)
      : precision(precision_),
        outputs(outputs_),
        cells((columns + ColumnsPerCell(precision_) - 1) / ColumnsPerCell(precision_)),
        steps(cells + (precision_ == Precision::kInt8 ? 2 : 0)),
        panels((outputs_ + kPanelOutputs - 1) / kPanelOutputs) {}

  // Groups of eight panels come first, what is left is one more; but a single panel is too narrow for a tile: the last
  // nine are five and four.
  HILOMOE_INLINED int WholeGroups() const {
    return panels / kGroupPanels - (panels % kGroupPanels == 1 && panels > 1 ? 1 : 0);
  }
  // The group of a panel.
  HILOMOE_INLINED PanelGroup Group(int panel) const {
    const int whole = WholeGroups() * kGroupPanels, left = panels - whole;
    if (panel < whole) return {panel / kGroupPanels * kGroupPanels, kGroupPanels};
    if (left <= kGroupPanels) return {whole, left};
    const int half = whole + (left + 1) / 2;
    return panel < half ? PanelGroup{whole, half - whole} : PanelGroup{half, panels - half};
  }
  // Where in PackedWeight::data an output's cell of a step is.
  HILOMOE_INLINED size_t Cell(int output, int step) const {
    const PanelGroup group = Group(output / kPanelOutputs);
    return Cells(group.first) + static_cast<size_t>(step) * group.stride() +
           static_cast<size_t>(output - group.first * kPanelOutputs);
  }
  // How many cells the first panels take, where no group is cut, and all.
  HILOMOE_INLINED size_t Cells(int first_panels) const {
    return static_cast<size_t>(first_panels) * static_cast<size_t>(steps) * size_t{kPanelOutputs};
  }
  HILOMOE_INLINED size_t size() const { return Cells(panels); }

  Precision precision;
  int outputs;  // n
  int cells;    // ceil(k / columns of a cell)
  int steps;    // of a group
  int panels;   // ceil(n / kPanelOutputs)
};

struct PackedWeight {
  PackedLayout layout;
  // Aligned to 64 bytes. Of kInt8 the last two steps are int32, 128 times the sum of a row's int8, and float, its
  // scale: w = scale * int8.
  const uint32_t* data;
};

// X [rows, k] in the same cells, row-major, `ld` in cells; what lies beyond k in the last cell counts, times 0. Of
// kFloat32 it is X itself. Of kInt8 x = scale[row] * (uint8 - 128).
struct PackedRows {
  const void* data;
  int ld;
  const float* scale;
};

// y = activation(product + add + bias); null is nothing. add [rows, n], ldadd 0: one for all rows; may be y itself.
struct ProductStore {
  const float* add = nullptr;
  int ldadd = 0;
  const float* bias = nullptr;
  Activation activation = Activation::kIdentity;
};

using ProductFunction = void (*)(const PackedWeight& weight, int rows, const PackedRows& x, const ProductStore& store,
                                 float* y, int ldy);

inline constexpr int kMaxExperts = 256;
// Scores of a tile of rows live on the stack: at 16 rows of 4 bytes this bound is 256 KiB.
inline constexpr int kMaxStackedExperts = 4096;
// A row whose largest magnitude is smaller is quantised to zeros: 127 over it would overflow.
inline constexpr float kSmallestMagnitude = 0x1p-118f;

struct Kernels {
  InstructionSet instruction_set;
  const char* name;  // "portable", "avx2", "avx512", "avx512_vnni", "avx512_bf16"

  // Dense routing. For every row r, with nu = inverse_norm[r] (1 where inverse_norm is null):
  //   z_l = tau_l * (alpha * nu * r_l + sum_{j<l} s_j G_lj^T) + c_l,   s_l = softmax(z_l),   gated_l = a_l * s_l
  // a and r [B, L*K] (lda), r null: it is a; gated [B, L*K] (ldg), may be the same memory as a, even where r is a;
  // scores [B, L*K] (lds) or null.
  // The exponential's relative error is at most 2^-23; where it falls below 2^-126 the score is 0. A NaN or +inf
  // among the logits of a layer makes that layer's scores NaN.
  void (*route_dense)(const Routing& routing, int rows, const float* a, const float* r, int lda,
                      const float* inverse_norm, float* gated, int ldg, float* scores, int lds);

  // Top-k routing: the k largest logits of a layer are kept (of equal ones the lower index), softmax over them.
  // gated [B, L*k] (ldg) and index [B, L*k] (ldi): per layer the kept experts in ascending order, index counted over
  // the stack, l*K + i. scores as above, exactly 0 for experts that are not kept. -0 equals 0, and a NaN counts as
  // larger than any number: it is kept and shows in the scores. Whatever the inputs, k experts are kept and every
  // index is in its layer's range.
  void (*route_top_k)(const Routing& routing, int rows, const float* a, const float* r, int lda,
                      const float* inverse_norm, float* gated, int ldg, int32_t* index, int ldi, float* scores,
                      int lds);

  // y = activation(y + bias + sum_j gated[r, j] * U[index[r, j], :]), in place: the n = L*k kept experts of each row.
  // y [B, O] (ldy), bias [O], gated and index [B, n] (ldg, ldi), U [L*K, O] (ldu).
  void (*add_experts_top_k)(int rows, int width, int n, const float* gated, int ldg, const int32_t* index, int ldi,
                            const float* u, int ldu, const float* bias, Activation activation, float* y, int ldy);

  // out[r] = sum_d x[r, d]^2
  void (*squared_norm)(int rows, int width, const float* x, int ldx, float* out);

  // logit[r] = bias + sum_d x[r, d] * weight[d]
  void (*head)(int rows, int width, const float* x, int ldx, const float* weight, float bias, float* logit);

  // y <- y p, p = sigmoid(y), in place; y [B, O] (ldy). The sigmoid's relative error is at most 2^-21.
  void (*silu)(int rows, int width, float* y, int ldy);

  // y <- y (p + a (1 - p)), p = sigmoid((y - mean) * inverse_deviation), in place; the three [O].
  void (*dice)(int rows, int width, const float* mean, const float* inverse_deviation, const float* a, float* y,
               int ldy);

  // One head of target attention for one candidate: s = softmax(history p), out = sum_j s_j history[j].
  // history [n, width] (ldh); the same transposed, [width, n] (ldt); p, out [width]; scores [n] receives s. n = 0
  // gives zeros.
  void (*attend)(int n, int width, const float* history, int ldh, const float* transposed, int ldt, const float* p,
                 float* scores, float* out);

  // out[d] += x[d]; the inner step of pooling and of adding the context's half to a candidate's.
  void (*add)(int width, const float* x, float* out);

  // Y = activation(X W^T + add + bias), y [rows, n] (ldy), by the weight's precision.
  ProductFunction product[3];

  // X [rows, width] (ldx) as the cells of PackedRows (ldc), the last cell's columns beyond width 0.
  // Subnormal numbers may become 0.
  void (*round_to_bfloat16)(int rows, int width, const float* x, int ldx, uint32_t* cells, int ldc);
  // The same of pairs of rows, which are the columns of X^T: cells[p, c] = (x[2 p, c], x[2 p + 1, c]), with 0 after an
  // odd last row; cells [ceil(rows / 2), width] (ldc).
  void (*pair_to_bfloat16)(int rows, int width, const float* x, int ldx, uint32_t* cells, int ldc);
  // X diag(factor), factor [width] or null for ones, as the cells of PackedRows (ldc) of kInt8, the last cell's columns
  // beyond width 0: scale[row] = max |x factor| / 127. A NaN or infinite number makes its row's scale, and so its
  // product, NaN or infinite.
  void (*quantise)(int rows, int width, const float* x, int ldx, const float* factor, uint32_t* cells, int ldc,
                   float* scale);
};

// The implementations that this build has, worst first, whether this machine supports them or not.
const Kernels* const* AllKernels(int* count) noexcept;
// Whether this machine and its operating system can run `set`.
bool Supported(InstructionSet set) noexcept;
// The best supported implementation at or below `limit`; the portable one always is.
const Kernels& SelectKernels(InstructionSet limit = InstructionSet::kAvx512Bf16) noexcept;

}  // namespace hilomoe::kernels

#endif  // HILOMOE_RUNTIME_KERNELS_KERNELS_H_
