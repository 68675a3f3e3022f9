#include "tools/train/routing.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tools/train/elementwise.h"
#include "tools/train/matrix_product.h"
#include "tools/train/routing_lanes.h"

namespace hilomoe {
namespace {

template <typename V>
void AddTo(const V& from, V* to) {
  for (size_t i = 0; i < from.size(); ++i) (*to)[i] += from[i];
}

// Full softmax of z [K] to p; returns logsumexp(z).
template <typename T>
T Softmax(const T* z, size_t K, T* p) {
  const T largest = *std::max_element(z, z + K);
  for (size_t i = 0; i < K; ++i) p[i] = z[i] - largest;
  Exponentials(K, p);
  T sum = 0;
  for (size_t i = 0; i < K; ++i) sum += p[i];
  const T scale = 1 / sum;
  for (size_t i = 0; i < K; ++i) p[i] *= scale;
  return largest + std::log(sum);
}

// One row's share of the sums of layer l: logits z, their full softmax p and logsumexp, scores s; [K] each.
template <typename T>
void AddSums(const BlockSpec& block, size_t l, const T* z, const T* p, const T* s, T total, RoutingSums* sums) {
  const size_t K = block.experts;
  const double excess = total - std::log(static_cast<double>(K));
  sums->excess[l] += excess * excess;
  double* probability = &sums->probability[l * K];
  double* score = &sums->score[l * K];
  double* kept = &sums->kept[l * K];
  // -sum s ln s with ln s_i = z_i - logsumexp over the kept ones: no logarithm per expert.
  double mean = 0, largest_kept = 0, z_of_largest = 0;
  for (size_t i = 0; i < K; ++i) {
    probability[i] += p[i];
    score[i] += s[i];
    kept[i] += s[i] > 0 ? 1 : 0;
    mean += static_cast<double>(s[i]) * z[i];
    if (s[i] > largest_kept) {
      largest_kept = s[i];
      z_of_largest = z[i];
    }
  }
  sums->entropy[l] += z_of_largest - std::log(largest_kept) - mean;
}

}  // namespace

template <typename T>
void RoutingGradients<T>::Reset(const BlockSpec& block) {
  alpha = 0;
  tau.assign(block.layers, 0);
  c.assign(block.stack(), 0);
  gram.assign(block.stack() * block.stack(), 0);
}

template <typename T>
void RoutingGradients<T>::Add(const RoutingGradients& other) {
  alpha += other.alpha;
  AddTo(other.tau, &tau);
  AddTo(other.c, &c);
  AddTo(other.gram, &gram);
}

void RoutingSums::Reset(const BlockSpec& block) {
  probability.assign(block.stack(), 0);
  kept.assign(block.stack(), 0);
  score.assign(block.stack(), 0);
  entropy.assign(block.layers, 0);
  excess.assign(block.layers, 0);
}

void RoutingSums::Add(const RoutingSums& other) {
  AddTo(other.probability, &probability);
  AddTo(other.kept, &kept);
  AddTo(other.score, &score);
  AddTo(other.entropy, &entropy);
  AddTo(other.excess, &excess);
}

template <typename T>
void ComputeGram(const BlockSpec& block, const T* v, T* gram) {
  const size_t n = block.stack(), D = block.input;
  if (!block.hierarchical) {
    std::fill_n(gram, n * n, T(0));
    return;
  }
  MatrixProduct(Transpose::kNo, Transpose::kYes, n, n, D, T(1), v, D, v, D, T(0), gram, n);
}

template <typename T>
T KeptSoftmax(const T* z, size_t K, size_t top_k, T* s) {
  if (top_k == 0) {
    Softmax(z, K, s);
    return std::numeric_limits<T>::infinity();
  }
  std::fill_n(s, K, T(0));
  // Selection by repeated maximum: k passes over K numbers, and of equal ones the first.
  T last = 0, sum = 0;
  const T largest = *std::max_element(z, z + K);
  const auto next = [&] {
    size_t best = K;
    for (size_t i = 0; i < K; ++i) {
      if (s[i] == 0 && (best == K || z[i] > z[best])) best = i;
    }
    return best;
  };
  for (size_t n = 0; n < top_k; ++n) {
    const size_t i = next();
    last = z[i];
    // An underflow must not make the expert look free again.
    s[i] = std::max(std::exp(z[i] - largest), std::numeric_limits<T>::min());
    sum += s[i];
  }
  const T gap = last - z[next()];
  for (size_t i = 0; i < K; ++i) s[i] /= sum;
  return gap;
}

// The buffers of a tile of kLanes rows.
template <typename T>
struct Tile {
  explicit Tile(size_t n, size_t K) : s(n * kLanes), x(n * kLanes), raw(n * kLanes), z(K * kLanes), p(K * kLanes) {}

  std::vector<T> s, x, raw;  // [L*K, kLanes]
  std::vector<T> z, p;       // [K, kLanes]
  T total[kLanes];
};

// Top-k has no form in lanes: row by row. Fills the tile's scores of layer l.
template <typename T>
void KeepTopK(const BlockSpec& block, size_t l, size_t first, size_t rows, Tile<T>* tile, T* gap, RoutingSums* sums) {
  const size_t K = block.experts;
  std::vector<T> z(K), p(K), s(K);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t i = 0; i < K; ++i) z[i] = tile->z[i * kLanes + r];
    const T distance = KeptSoftmax(z.data(), K, block.top_k, s.data());
    for (size_t i = 0; i < K; ++i) tile->s[(l * K + i) * kLanes + r] = s[i];
    if (gap != nullptr) gap[first + r] = std::min(gap[first + r], distance);
    if (sums == nullptr) continue;
    const T total = Softmax(z.data(), K, p.data());
    AddSums(block, l, z.data(), p.data(), s.data(), total, sums);
  }
}

// The dense routing's sums of layer l.
template <typename T>
void AddTileSums(const BlockSpec& block, size_t l, size_t rows, const Tile<T>& tile, RoutingSums* sums) {
  const size_t K = block.experts;
  const double ln_K = std::log(static_cast<double>(K));
  const T* s = tile.s.data() + l * K * kLanes;
  T mean[kLanes] = {};
  for (size_t i = 0; i < K; ++i) {
    T sum = 0, kept = 0;
    for (size_t r = 0; r < rows; ++r) {
      sum += s[i * kLanes + r];
      kept += s[i * kLanes + r] > 0 ? T(1) : T(0);
    }
    for (size_t r = 0; r < kLanes; ++r) mean[r] += s[i * kLanes + r] * tile.z[i * kLanes + r];
    sums->probability[l * K + i] += sum;
    sums->score[l * K + i] += sum;
    sums->kept[l * K + i] += kept;
  }
  for (size_t r = 0; r < rows; ++r) {
    const double excess = tile.total[r] - ln_K;
    sums->excess[l] += excess * excess;
    sums->entropy[l] += tile.total[r] - mean[r];  // -sum s ln s with ln s = z - total
  }
}

template <typename T>
void RouteForward(const BlockSpec& block, const BlockTensors<const T>& tensors, const T* gram, size_t begin, size_t end,
                  const T* a, const T* query, size_t lda, const T* nu, T* raw, T* s, T* gated, T* gap,
                  RoutingSums* sums) {
  const size_t L = block.layers, K = block.experts, n = block.stack(), layer = K * kLanes;
  Tile<T> tile(n, K);
  T scale[kLanes] = {};
  for (size_t first = begin; first < end; first += kLanes) {
    const size_t rows = std::min(kLanes, end - first);
    for (size_t r = 0; r < rows; ++r) scale[r] = tensors.alpha[0] * nu[first + r];
    RowsToLanes(rows, n, query + first * lda, lda, tile.x.data());
    std::fill(tile.raw.begin(), tile.raw.end(), T(0));
    for (size_t l = 0; l < L; ++l) {
      T* rawl = tile.raw.data() + l * layer;
      if (block.hierarchical) AddProductLanes(K, l * K, gram + l * K * n, n, 1, tile.s.data(), rawl);
      LogitLanes(K, scale, tile.x.data() + l * layer, tensors.tau[l], tensors.c + l * K, rawl, tile.z.data());
      if (block.top_k > 0) {
        KeepTopK(block, l, first, rows, &tile, gap, sums);
        continue;
      }
      SoftmaxLanes(K, tile.z.data(), tile.s.data() + l * layer, tile.total);
      if (sums != nullptr) AddTileSums(block, l, rows, tile, sums);
    }
    LanesToRows(rows, n, tile.raw.data(), raw + first * n, n);
    LanesToRows(rows, n, tile.s.data(), s + first * n, n);
    for (size_t r = first; r < first + rows; ++r) {
      for (size_t i = 0; i < n; ++i) gated[r * n + i] = a[r * lda + i] * s[r * n + i];
    }
  }
}

// What the routing losses add to draw of layer l: p (g - sum p g + z_scale excess).
template <typename T>
void AddLossGradient(const BlockSpec& block, const RoutingLossGradient& loss, size_t l, T tau, const T* c, const T* s,
                     const T* raw, Tile<T>* tile, T* out) {
  const size_t K = block.experts;
  const T ln_K = std::log(static_cast<T>(K)), z_scale = static_cast<T>(loss.z_scale);
  const T* p = s;  // with dense routing the scores are the full softmax
  T shift[kLanes] = {};
  if (block.top_k > 0 || z_scale != 0) {
    for (size_t i = 0; i < K; ++i) {
      for (size_t r = 0; r < kLanes; ++r) tile->z[i * kLanes + r] = tau * raw[i * kLanes + r] + c[i];
    }
    SoftmaxLanes(K, tile->z.data(), tile->p.data(), tile->total);
    p = tile->p.data();
    for (size_t r = 0; r < kLanes; ++r) shift[r] = z_scale * (tile->total[r] - ln_K);
  }
  for (size_t i = 0; i < K; ++i) {
    const T g = static_cast<T>(loss.g[l * K + i]);
    for (size_t r = 0; r < kLanes; ++r) shift[r] -= p[i * kLanes + r] * g;
  }
  for (size_t i = 0; i < K; ++i) {
    const T g = static_cast<T>(loss.g[l * K + i]);
    for (size_t r = 0; r < kLanes; ++r) out[i * kLanes + r] += p[i * kLanes + r] * (g + shift[r]);
  }
}

template <typename T>
void RouteBackward(const BlockSpec& block, const BlockTensors<const T>& tensors, const T* gram, size_t begin,
                   size_t end, const T* a, const T* query, size_t lda, const T* nu, const T* raw, const T* s,
                   const RoutingLossGradient& loss, T* dh, T* da, T* dquery, size_t ldda, T* dnu,
                   RoutingGradients<T>* gradients) {
  const size_t L = block.layers, K = block.experts, n = block.stack(), layer = K * kLanes;
  const T alpha = tensors.alpha[0];
  Tile<T> tile(n, K);
  std::vector<T> ds(n * kLanes), draw(n * kLanes);
  for (size_t first = begin; first < end; first += kLanes) {
    const size_t rows = std::min(kLanes, end - first);
    for (size_t r = first; r < first + rows; ++r) {
      T* dhr = dh + r * n;
      for (size_t i = 0; i < n; ++i) {
        da[r * ldda + i] = dhr[i] * s[r * n + i];
        dhr[i] *= a[r * lda + i];
      }
    }
    RowsToLanes(rows, n, dh + first * n, n, ds.data());
    RowsToLanes(rows, n, s + first * n, n, tile.s.data());
    RowsToLanes(rows, n, raw + first * n, n, tile.raw.data());
    RowsToLanes(rows, n, query + first * lda, lda, tile.x.data());
    T dalpha_nu[kLanes] = {};
    for (size_t l = L; l-- > 0;) {
      const T tau = tensors.tau[l];
      const T *sl = &tile.s[l * layer], *rawl = &tile.raw[l * layer], *xl = &tile.x[l * layer];
      T* out = &draw[l * layer];
      SoftmaxBackwardLanes(K, sl, &ds[l * layer], out);  // exactly 0 for experts that are not kept
      if (loss.active) AddLossGradient(block, loss, l, tau, tensors.c + l * K, sl, rawl, &tile, out);
      T dtau[kLanes] = {};
      for (size_t i = 0; i < K; ++i, out += kLanes, rawl += kLanes, xl += kLanes) {
        T dc = 0;
        for (size_t r = 0; r < rows; ++r) dc += out[r];
        gradients->c[l * K + i] += dc;
        for (size_t r = 0; r < kLanes; ++r) {
          dtau[r] += out[r] * rawl[r];
          out[r] *= tau;  // from dz to draw
          dalpha_nu[r] += out[r] * xl[r];
        }
      }
      for (size_t r = 0; r < rows; ++r) gradients->tau[l] += dtau[r];
      if (block.hierarchical) AddProductLanes(l * K, K, gram + l * K * n, 1, n, &draw[l * layer], ds.data());
    }
    LanesToRows(rows, n, draw.data(), dh + first * n, n);
    for (size_t r = 0; r < rows; ++r) {
      dnu[first + r] = alpha * dalpha_nu[r];
      gradients->alpha += dalpha_nu[r] * nu[first + r];
      T* to = dquery + (first + r) * ldda;
      const T *from = dh + (first + r) * n, factor = alpha * nu[first + r];
      for (size_t i = 0; i < n; ++i) to[i] = (dquery == da ? to[i] : T(0)) + factor * from[i];
    }
  }
  if (!block.hierarchical) return;
  for (size_t l = 1; l < L; ++l) {
    MatrixProduct(Transpose::kYes, Transpose::kNo, K, l * K, end - begin, T(1), dh + begin * n + l * K, n,
                  s + begin * n, n, T(1), gradients->gram.data() + l * K * n, n);
  }
}

template <typename T>
void GramBackward(const BlockSpec& block, const T* v, const T* gram_gradient, T* dv) {
  const size_t K = block.experts, n = block.stack(), D = block.input;
  for (size_t l = 1; l < block.layers && block.hierarchical; ++l) {
    const T* dg = gram_gradient + l * K * n;  // [K, l*K] of row block l
    MatrixProduct(Transpose::kNo, Transpose::kNo, K, D, l * K, T(1), dg, n, v, D, T(1), dv + l * K * D, D);
    MatrixProduct(Transpose::kYes, Transpose::kNo, l * K, D, K, T(1), dg, n, v + l * K * D, D, T(1), dv, D);
  }
}

#define HILOMOE_INSTANTIATE(T)                                                                                        \
  template struct RoutingGradients<T>;                                                                                \
  template void ComputeGram(const BlockSpec&, const T*, T*);                                                          \
  template T KeptSoftmax(const T*, size_t, size_t, T*);                                                               \
  template void RouteForward(const BlockSpec&, const BlockTensors<const T>&, const T*, size_t, size_t, const T*,      \
                             const T*, size_t, const T*, T*, T*, T*, T*, RoutingSums*);                               \
  template void RouteBackward(const BlockSpec&, const BlockTensors<const T>&, const T*, size_t, size_t, const T*,     \
                              const T*, size_t, const T*, const T*, const T*, const RoutingLossGradient&, T*, T*, T*, \
                              size_t, T*, RoutingGradients<T>*);                                                      \
  template void GramBackward(const BlockSpec&, const T*, const T*, T*)

HILOMOE_INSTANTIATE(float);
HILOMOE_INSTANTIATE(double);

}  // namespace hilomoe
