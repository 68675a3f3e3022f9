// The model in plain loops, row by row, exactly as written down: the query chain as it stands (no Gram matrix, nothing
// stacked, nothing folded), batch norm in evaluation or training mode; its loss is in reference_loss.h. Everything fast
// is held against it, in double; its gradients are taken with T = std::complex<double> (complex step), the rounding
// errors of a float32 evaluation with T = Rounded. Slow on purpose, header-only for its scalar types.
//
// Source: arXiv 2510.10432 and, where marked in the config, our reading of it.
#ifndef HILOMOE_MODEL_REFERENCE_H_
#define HILOMOE_MODEL_REFERENCE_H_

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "model/encoded_batch.h"
#include "model/model_spec.h"
#include "model/rounding.h"
#include "model/stored_matrix.h"
#include "model/tensor_registry.h"

namespace hilomoe {

inline constexpr double kBatchNormEpsilon = 1e-5;
// |x| is not taken smaller in x/|x|: a row of zeros has no direction, and its gradient no bound.
inline constexpr double kMinQueryNorm = 1e-3;

inline double RealPart(double x) { return x; }
inline double RealPart(const std::complex<double>& x) { return x.real(); }
inline double RealPart(const Rounded& x) { return x.value; }

// How far apart two logits are, in the unit in which a tie is judged: the numbers' own, or standard deviations of
// their rounding errors.
inline double TieGap(double a, double b) { return a - b; }
inline double TieGap(const std::complex<double>& a, const std::complex<double>& b) { return a.real() - b.real(); }
inline double TieGap(const Rounded& a, const Rounded& b) {
  return (a.value - b.value) / std::sqrt(a.variance + b.variance);
}

template <typename T>
T Relu(const T& x) {
  return RealPart(x) > 0 ? x : T(0.0);
}
// Where a rounding error may lift x above 0, the error passes.
inline Rounded Relu(const Rounded& x) {
  if (x.value > 0) return x;
  return {0, x.value + x.Bound() > 0 ? x.variance : 0};
}

template <typename T>
T ReferenceSigmoid(const T& x) {
  using std::exp;
  return T(1.0) / (T(1.0) + exp(-x));
}

// What the inputs of a block's products are rounded to where they are evaluated in fewer bits than float32: x before
// the stacked weight (its first `split` columns and the others each for themselves) and the gated a * s before U.
struct ProductRounding {
  Precision dense = Precision::kFloat32;
  Precision experts = Precision::kFloat32;
  size_t split = 0;
};

struct ReferenceOptions {
  bool experts = true;            // off: every block is its base alone
  bool batch_statistics = false;  // batch norm in training mode
  // What the output of (block, row, column) is multiplied by after the activation; null = 1.
  std::function<double(size_t block, size_t row, size_t column)> dropout = nullptr;
  ProductRounding rounding = {};  // of every block; the split is the model's own
};

template <typename T>
struct ReferenceOutput {
  std::vector<T> logits;                       // [B]
  std::vector<std::vector<T>> routing_logits;  // per block z [B, L*K]; empty without experts
  std::vector<std::vector<T>> scores;          // per block s [B, L*K]
  std::vector<double> tie_gap;                 // [B]: the smallest TieGap between the k-th and the next logit of any
                                               // layer; infinite with dense routing
};

// Row `row` of a feature's slice of x, written to x[input_offset ...].
template <typename T>
void ReferenceFeature(const ModelSpec& spec, const FeatureTensors<const T>& tensors, const EncodedBatch& batch,
                      size_t f, size_t row, T* x) {
  const FeatureSpec& feature = spec.features()[f];
  const EncodedFeature& encoded = batch.features[f];
  if (feature.is_unpooled()) return;
  if (feature.is_context() && batch.context_rows == 1) row = 0;
  T* out = x + feature.input_offset;
  const size_t d = feature.width;
  if (feature.is_number()) {
    const T value(encoded.values[row]);
    if (d == 0) {
      *out = value;
    } else {
      for (size_t i = 0; i < d; ++i) out[i] = value * tensors.numeric_weight[f][i];
    }
    if (feature.missing_indicator) out[std::max<size_t>(d, 1)] = T(encoded.missing[row]);
    return;
  }
  const T* table = tensors.tables[feature.table];
  if (!feature.is_pooled()) {
    std::copy_n(table + encoded.rows[row] * d, d, out);
    return;
  }
  std::fill_n(out, d, T(0.0));
  const size_t begin = encoded.offsets[row], end = encoded.offsets[row + 1];
  for (size_t i = begin; i < end; ++i) {
    for (size_t j = 0; j < d; ++j) out[j] += table[encoded.rows[i] * d + j];
  }
  if (end == begin) return;
  const T scale = T(1.0) / T(static_cast<double>(end - begin));
  for (size_t j = 0; j < d; ++j) out[j] *= scale;
}

// What feature f of row `row` adds to the linear term.
template <typename T>
T ReferenceLinear(const ModelSpec& spec, const FeatureTensors<const T>& tensors, const EncodedBatch& batch, size_t f,
                  size_t row) {
  const FeatureSpec& feature = spec.features()[f];
  const EncodedFeature& encoded = batch.features[f];
  const T* weight = tensors.linear[f];
  if (weight == nullptr) return T(0.0);
  if (feature.is_context() && batch.context_rows == 1) row = 0;
  if (feature.is_number()) return T(encoded.values[row]) * weight[0];
  if (!feature.is_pooled()) return weight[encoded.rows[row]];
  const size_t begin = encoded.offsets[row], end = encoded.offsets[row + 1];
  T sum(0.0);
  for (size_t i = begin; i < end; ++i) sum += weight[encoded.rows[i]];
  return end > begin ? sum / T(static_cast<double>(end - begin)) : sum;
}

// y [rows of w] = w x; w [rows, columns].
template <typename T>
std::vector<T> ReferenceProduct(const T* w, size_t rows, const std::vector<T>& x) {
  std::vector<T> y(rows, T(0.0));
  for (size_t o = 0; o < rows; ++o) {
    for (size_t d = 0; d < x.size(); ++d) y[o] += w[o * x.size() + d] * x[d];
  }
  return y;
}

// Row `row` of one attention's slice of x.
template <typename T>
void ReferenceAttention(const ModelSpec& spec, const AttentionSpec& attention, const AttentionTensors<const T>& tensors,
                        const FeatureTensors<const T>& features, const EncodedBatch& batch, size_t row, T* x) {
  using std::exp;
  T* out = x + attention.input_offset;
  std::fill_n(out, attention.output_width, T(0.0));
  const auto embedding = [&](int f, uint32_t id_row) {
    const FeatureSpec& feature = spec.features()[f];
    return features.tables[feature.table] + id_row * feature.width;
  };
  std::vector<T> query;
  for (const int f : attention.query) {
    const T* e = embedding(f, batch.features[f].rows[row]);
    query.insert(query.end(), e, e + spec.features()[f].width);
  }
  const bool shared = spec.features()[attention.history[0]].is_context() && batch.context_rows == 1;
  const size_t history_row = shared ? 0 : row;
  const std::vector<uint32_t>& offsets = batch.features[attention.history[0]].offsets;
  const size_t begin = offsets[history_row], n = offsets[history_row + 1] - begin;
  if (n == 0) return;
  const size_t inner = attention.inner_width(), width = attention.head_width;
  std::vector<std::vector<T>> keys, values;
  for (size_t j = 0; j < n; ++j) {
    std::vector<T> h;
    for (const int f : attention.history) {
      const T* e = embedding(f, batch.features[f].rows[begin + j]);
      h.insert(h.end(), e, e + spec.features()[f].width);
    }
    keys.push_back(ReferenceProduct(tensors.key, inner, h));
    values.push_back(ReferenceProduct(tensors.value, inner, h));
  }
  const std::vector<T> q = ReferenceProduct(tensors.query, inner, query);
  std::vector<T> heads(inner, T(0.0));
  for (size_t head = 0; head < inner; head += width) {
    std::vector<T> score(n, T(0.0));
    double largest = -std::numeric_limits<double>::infinity();
    for (size_t j = 0; j < n; ++j) {
      for (size_t d = head; d < head + width; ++d) score[j] += q[d] * keys[j][d];
      score[j] = score[j] / T(std::sqrt(static_cast<double>(width)));
      largest = std::max(largest, RealPart(score[j]));
    }
    T sum(0.0);
    for (T& s : score) {
      s = exp(s - T(largest));
      sum += s;
    }
    for (size_t j = 0; j < n; ++j) {
      for (size_t d = head; d < head + width; ++d) heads[d] += score[j] / sum * values[j][d];
    }
  }
  const std::vector<T> y = ReferenceProduct(tensors.output, attention.output_width, heads);
  std::copy(y.begin(), y.end(), out);
}

// Scores of one layer: softmax over the kept logits z [K]; returns the tie gap.
template <typename T>
double ReferenceScores(const std::vector<T>& z, size_t top_k, T* s) {
  using std::exp;
  const size_t K = z.size();
  std::vector<size_t> order(K);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return RealPart(z[a]) > RealPart(z[b]); });
  const size_t kept = top_k > 0 ? top_k : K;
  const double largest = RealPart(z[order[0]]);
  std::fill_n(s, K, T(0.0));
  T sum(0.0);
  for (size_t i = 0; i < kept; ++i) {
    s[order[i]] = exp(z[order[i]] - T(largest));
    sum += s[order[i]];
  }
  for (size_t i = 0; i < kept; ++i) s[order[i]] = s[order[i]] / sum;
  return kept < K ? TieGap(z[order[kept - 1]], z[order[kept]]) : std::numeric_limits<double>::infinity();
}

// Of each expert the largest number of its U, behind which batch norm's running statistics are folded: what its gated
// input is multiplied by, but for a factor of them all, before that is rounded to int8.
template <typename T>
std::vector<double> ExpertMagnitudes(const BlockSpec& block, const BlockTensors<const T>& tensors) {
  std::vector<double> largest(block.stack());
  for (size_t i = 0; i < largest.size(); ++i) {
    for (size_t o = 0; o < block.width; ++o) {
      double u = RealPart(tensors.u[i * block.width + o]);
      if (block.batch_norm) {
        u *= RealPart(tensors.gamma[o]) / std::sqrt(RealPart(tensors.running_variance[o]) + kBatchNormEpsilon);
      }
      largest[i] = std::max(largest[i], std::fabs(u));
    }
  }
  return largest;
}

// y = x W0^T + b + sum_l ((x V_l^T) * s_l) U_l for one row x [D]; z, s [L*K].
template <typename T>
double ReferenceBlock(const BlockSpec& block, const BlockTensors<const T>& tensors, bool experts, const T* exact_x,
                      T* y, T* z, T* s, const ProductRounding& rounding = {}) {
  using std::sqrt;
  const size_t D = block.input, O = block.width, L = experts ? block.layers : 0, K = block.experts;
  std::vector<T> x(exact_x, exact_x + D);
  AddRoundingError(rounding.dense, x.data(), rounding.split);
  AddRoundingError(rounding.dense, x.data() + rounding.split, D - rounding.split);
  for (size_t o = 0; o < O; ++o) {
    y[o] = tensors.base_bias[o];
    for (size_t d = 0; d < D; ++d) y[o] += tensors.base_weight[o * D + d] * x[d];
  }
  if (L == 0) return std::numeric_limits<double>::infinity();
  std::vector<T> q = x;
  if (block.projected_query) q = ReferenceProduct(tensors.query, D, q);
  T scale = tensors.alpha[0];
  if (block.unit_query) {
    T squared(0.0);
    for (size_t d = 0; d < D; ++d) squared += exact_x[d] * exact_x[d];
    const T norm = RealPart(squared) > kMinQueryNorm * kMinQueryNorm ? sqrt(squared) : T(kMinQueryNorm);
    scale = scale / norm;
  }
  for (T& element : q) element *= scale;
  double gap = std::numeric_limits<double>::infinity();
  std::vector<T> logits(K), gated(L * K, T(0.0));
  for (size_t l = 0; l < L; ++l) {
    const T* V = tensors.v + l * K * D;
    for (size_t i = 0; i < K; ++i) {
      T dot(0.0);
      for (size_t d = 0; d < D; ++d) dot += q[d] * V[i * D + d];
      logits[i] = tensors.tau[l] * dot + tensors.c[l * K + i];
      z[l * K + i] = logits[i];
    }
    T* scores = s + l * K;
    gap = std::min(gap, ReferenceScores(logits, block.top_k, scores));
    for (size_t i = 0; i < K; ++i) {
      if (RealPart(scores[i]) == 0) continue;
      T a(0.0);
      for (size_t d = 0; d < D; ++d) a += x[d] * V[i * D + d];
      gated[l * K + i] = a * scores[i];
      for (size_t d = 0; d < D && block.hierarchical; ++d) q[d] += scores[i] * V[i * D + d];
    }
  }
  // The kept experts of top-k routing are added in float32.
  if (block.top_k == 0 && rounding.experts != Precision::kFloat32) {
    AddRoundingError(rounding.experts, gated.data(), L * K, ExpertMagnitudes(block, tensors).data());
  }
  for (size_t i = 0; i < L * K; ++i) {
    if (RealPart(s[i]) == 0) continue;
    for (size_t o = 0; o < O; ++o) y[o] += gated[i] * tensors.u[i * O + o];
  }
  return gap;
}

// Mean and (biased) variance of column o of y [B, O] in training mode, else the running ones.
template <typename T>
std::pair<T, T> ReferenceStatistics(bool batch_statistics, const std::vector<T>& y, size_t B, size_t O, size_t o,
                                    const T& running_mean, const T& running_variance) {
  if (!batch_statistics) return {running_mean, running_variance};
  const T rows(static_cast<double>(B));
  T mean(0.0), variance(0.0);
  for (size_t r = 0; r < B; ++r) mean += y[r * O + o];
  mean = mean / rows;
  for (size_t r = 0; r < B; ++r) variance += (y[r * O + o] - mean) * (y[r * O + o] - mean);
  return {mean, variance / rows};
}

// Batch norm, activation and dropout of y [B, O], in place.
template <typename T>
void ReferenceAfterBlock(const BlockSpec& block, const BlockTensors<const T>& tensors, const ReferenceOptions& options,
                         size_t b, size_t B, std::vector<T>& y) {
  using std::sqrt;
  const size_t O = block.width;
  for (size_t o = 0; o < O; ++o) {
    if (block.batch_norm) {
      const auto [mean, variance] = ReferenceStatistics(options.batch_statistics, y, B, O, o, tensors.running_mean[o],
                                                        tensors.running_variance[o]);
      const T scale = tensors.gamma[o] / sqrt(variance + T(kBatchNormEpsilon));
      for (size_t r = 0; r < B; ++r) y[r * O + o] = (y[r * O + o] - mean) * scale + tensors.beta[o];
    }
    T mean(0.0), deviation(1.0);
    if (block.activation == v1::Block::DICE) {
      const auto [m, variance] =
          ReferenceStatistics(options.batch_statistics, y, B, O, o, tensors.dice_mean[o], tensors.dice_variance[o]);
      mean = m;
      deviation = sqrt(variance + T(kBatchNormEpsilon));
    }
    for (size_t r = 0; r < B; ++r) {
      T& value = y[r * O + o];
      if (block.activation == v1::Block::RELU) {
        value = Relu(value);
      } else if (block.activation == v1::Block::SILU) {
        value = value * ReferenceSigmoid(value);
      } else if (block.activation == v1::Block::DICE) {
        const T p = ReferenceSigmoid((value - mean) / deviation);
        value = value * (p + tensors.dice[o] * (T(1.0) - p));
      }
      if (options.dropout) value *= T(options.dropout(b, r, o));
    }
  }
}

template <typename T>
ReferenceOutput<T> ReferenceForward(const ModelSpec& spec, const ModelTensors<const T>& tensors,
                                    const EncodedBatch& batch, const ReferenceOptions& options = {}) {
  const size_t B = batch.candidate_rows;
  ReferenceOutput<T> out;
  out.tie_gap.assign(B, std::numeric_limits<double>::infinity());
  size_t D = spec.input_width();
  std::vector<T> input(B * D);
  for (size_t r = 0; r < B; ++r) {
    for (size_t f = 0; f < spec.features().size(); ++f) {
      ReferenceFeature(spec, tensors.features, batch, f, r, &input[r * D]);
    }
    for (size_t i = 0; i < spec.attention().size(); ++i) {
      ReferenceAttention(spec, spec.attention()[i], tensors.attention[i], tensors.features, batch, r, &input[r * D]);
    }
  }
  std::vector<T> x = input, head;  // head [B, head_width]
  const auto append_to_head = [&](size_t offset) {
    head.resize(B * spec.head_width());
    for (size_t r = 0; r < B; ++r) std::copy_n(&x[r * D], D, &head[r * spec.head_width() + offset]);
  };
  for (size_t b = 0; b < spec.blocks().size(); ++b) {
    const BlockSpec& block = spec.blocks()[b];
    if (spec.is_first(b)) {
      if (b > 0) append_to_head(0);
      x = input;
      D = spec.input_width();
    }
    const size_t stack = options.experts ? block.stack() : 0;
    std::vector<T> y(B * block.width), z(B * stack), s(B * stack);
    ProductRounding rounding = options.rounding;
    rounding.split = spec.is_first(b) ? spec.context_width() : 0;
    if (StackedStorage(block) == StorageGroup::kFloat32) rounding.dense = Precision::kFloat32;
    for (size_t r = 0; r < B; ++r) {
      const double gap = ReferenceBlock(block, tensors.blocks[b], options.experts, &x[r * D], &y[r * block.width],
                                        z.data() + r * stack, s.data() + r * stack, rounding);
      out.tie_gap[r] = std::min(out.tie_gap[r], gap);
    }
    ReferenceAfterBlock(block, tensors.blocks[b], options, b, B, y);
    if (b >= spec.deep_blocks()) {
      for (size_t i = 0; i < y.size(); ++i) y[i] = input[i] * y[i] + x[i];
    }
    out.routing_logits.push_back(std::move(z));
    out.scores.push_back(std::move(s));
    x = std::move(y);
    D = block.width;
  }
  append_to_head(spec.head_width() - D);
  D = spec.head_width();
  out.logits.assign(B, tensors.head_bias[0]);
  for (size_t r = 0; r < B; ++r) {
    for (size_t f = 0; f < spec.features().size(); ++f) {
      out.logits[r] += ReferenceLinear(spec, tensors.features, batch, f, r);
    }
    for (size_t d = 0; d < D; ++d) out.logits[r] += head[r * D + d] * tensors.head_weight[d];
  }
  return out;
}

}  // namespace hilomoe

#endif  // HILOMOE_MODEL_REFERENCE_H_
