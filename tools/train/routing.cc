#include "tools/train/routing.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tools/train/elementwise.h"
#include "tools/train/matrix_product.h"

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

template <typename T>
void RouteForward(const BlockSpec& block, const BlockTensors<const T>& tensors, const T* gram, size_t begin, size_t end,
                  const T* a, size_t lda, const T* nu, T* raw, T* s, T* gap, RoutingSums* sums) {
  const size_t L = block.layers, K = block.experts, n = block.stack();
  const T alpha = tensors.alpha[0];
  std::vector<T> z(K), p(K);
  for (size_t l = 0; l < L; ++l) {
    T* rawl = raw + begin * n + l * K;
    MatrixProduct(Transpose::kNo, Transpose::kYes, end - begin, K, l * K, T(1), s + begin * n, n, gram + l * K * n, n,
                  T(0), rawl, n);
    for (size_t r = begin; r < end; ++r, rawl += n) {
      T* sl = s + r * n + l * K;
      for (size_t i = 0; i < K; ++i) {
        rawl[i] = alpha * nu[r] * a[r * lda + l * K + i] + (l > 0 ? rawl[i] : T(0));
        z[i] = tensors.tau[l] * rawl[i] + tensors.c[l * K + i];
      }
      T total;  // logsumexp of all logits
      const T* all = sl;
      if (block.top_k == 0) {
        total = Softmax(z.data(), K, sl);
      } else {
        const T distance = KeptSoftmax(z.data(), K, block.top_k, sl);
        if (gap != nullptr) gap[r] = std::min(gap[r], distance);
        if (sums == nullptr) continue;
        total = Softmax(z.data(), K, p.data());
        all = p.data();
      }
      if (sums != nullptr) AddSums(block, l, z.data(), all, sl, total, sums);
    }
  }
}

template <typename T>
void RouteBackward(const BlockSpec& block, const BlockTensors<const T>& tensors, const T* gram, size_t begin,
                   size_t end, const T* a, size_t lda, const T* nu, const T* raw, const T* s,
                   const RoutingLossGradient& loss, T* ds, T* da, size_t ldda, T* dnu, RoutingGradients<T>* gradients) {
  const size_t L = block.layers, K = block.experts, n = block.stack();
  const T alpha = tensors.alpha[0];
  const T ln_K = std::log(static_cast<T>(K));
  const size_t rows = end - begin;
  std::vector<T> draw(rows * K), z(K), full(K);
  std::fill(dnu + begin, dnu + end, T(0));
  for (size_t l = L; l-- > 0;) {
    const T tau = tensors.tau[l];
    for (size_t r = begin; r < end; ++r) {
      const T* rawl = raw + r * n + l * K;
      const T* sl = s + r * n + l * K;
      const T* dsl = ds + r * n + l * K;
      T* out = &draw[(r - begin) * K];
      T mean = 0;
      for (size_t i = 0; i < K; ++i) mean += sl[i] * dsl[i];
      for (size_t i = 0; i < K; ++i) out[i] = sl[i] * (dsl[i] - mean);  // exactly 0 for experts that are not kept
      if (loss.active) {
        const T* p = sl;  // with dense routing the scores are the full softmax
        T excess = 0;
        if (block.top_k > 0 || loss.z_scale != 0) {
          for (size_t i = 0; i < K; ++i) z[i] = tau * rawl[i] + tensors.c[l * K + i];
          excess = Softmax(z.data(), K, full.data()) - ln_K;
          p = full.data();
        }
        T mean_g = 0;
        for (size_t i = 0; i < K; ++i) mean_g += p[i] * static_cast<T>(loss.g[l * K + i]);
        for (size_t i = 0; i < K; ++i) {
          out[i] += p[i] * (static_cast<T>(loss.g[l * K + i]) - mean_g + static_cast<T>(loss.z_scale) * excess);
        }
      }
      const T* al = a + r * lda + l * K;
      T* dal = da + r * ldda + l * K;
      T dalpha_nu = 0, dtau = 0;
      for (size_t i = 0; i < K; ++i) {
        dtau += out[i] * rawl[i];
        gradients->c[l * K + i] += out[i];
        out[i] *= tau;  // from dz to draw
        dalpha_nu += out[i] * al[i];
        dal[i] += alpha * nu[r] * out[i];
      }
      gradients->tau[l] += dtau;
      gradients->alpha += dalpha_nu * nu[r];
      dnu[r] += alpha * dalpha_nu;
    }
    if (l == 0) continue;
    MatrixProduct(Transpose::kNo, Transpose::kNo, rows, l * K, K, T(1), draw.data(), K, gram + l * K * n, n, T(1),
                  ds + begin * n, n);
    MatrixProduct(Transpose::kYes, Transpose::kNo, K, l * K, rows, T(1), draw.data(), K, s + begin * n, n, T(1),
                  gradients->gram.data() + l * K * n, n);
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

#define HILOMOE_INSTANTIATE(T)                                                                                      \
  template struct RoutingGradients<T>;                                                                              \
  template void ComputeGram(const BlockSpec&, const T*, T*);                                                        \
  template T KeptSoftmax(const T*, size_t, size_t, T*);                                                             \
  template void RouteForward(const BlockSpec&, const BlockTensors<const T>&, const T*, size_t, size_t, const T*,    \
                             size_t, const T*, T*, T*, T*, RoutingSums*);                                           \
  template void RouteBackward(const BlockSpec&, const BlockTensors<const T>&, const T*, size_t, size_t, const T*,   \
                              size_t, const T*, const T*, const T*, const RoutingLossGradient&, T*, T*, size_t, T*, \
                              RoutingGradients<T>*);                                                                \
  template void GramBackward(const BlockSpec&, const T*, const T*, T*)

HILOMOE_INSTANTIATE(float);
HILOMOE_INSTANTIATE(double);

}  // namespace hilomoe
