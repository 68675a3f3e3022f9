#include "tools/train/block.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "tools/train/bfloat16_gemm.h"
#include "tools/train/elementwise.h"
#include "tools/train/matrix_product.h"

namespace hilomoe {
namespace {

constexpr size_t kRowGrain = 16;     // rows of a thread's slice
constexpr size_t kColumnGrain = 16;  // columns of a thread's slice: a cache line of floats

// What a product does with C: C = op(A) op(B), or C +=.
constexpr bool kSet = false, kAdd = true;

}  // namespace

template <typename T>
TrainBlock<T>::TrainBlock(const BlockSpec& block, Parallel& parallel)
    : block_(block),
      spec_top_k_(block.top_k),
      parallel_(parallel),
      epilogue_(block, parallel),
      gram_(block.stack() * block.stack()),
      thread_sums_(static_cast<size_t>(parallel.threads())),
      thread_gradients_(static_cast<size_t>(parallel.threads())) {}

template <typename T>
void TrainBlock<T>::Product(Transpose transpose_a, Transpose transpose_b, size_t m, size_t n, size_t k, const T* a,
                            size_t lda, const T* b, size_t ldb, bool add, T* c, size_t ldc) const {
  if constexpr (std::is_same_v<T, float>) {
    if (mode_.bfloat16) return Bfloat16Gemm(transpose_a, transpose_b, m, n, k, a, lda, b, ldb, add, c, ldc);
  }
  MatrixProduct(transpose_a, transpose_b, m, n, k, T(1), a, lda, b, ldb, add ? T(1) : T(0), c, ldc);
}

template <typename T>
void TrainBlock<T>::Forward(const BlockTensors<const T>& tensors, const BlockMode& mode, const T* x, size_t B, T* gap) {
  mode_ = mode;
  block_.top_k = mode.top_k.value_or(spec_top_k_);
  x_ = x;
  B_ = B;
  const size_t D = block_.input, O = block_.width, n = stack(), ldz = stacked();
  const bool projected = n > 0 && block_.projected_query;
  z_.resize(B * ldz);
  nu_.resize(B);
  raw_.resize(B * n);
  s_.resize(B * n);
  gated_.resize(B * n);
  if (n > 0) ComputeGram(block_, tensors.v, gram_.data());
  if (projected) {
    projected_v_.resize(n * D);
    MatrixProduct(Transpose::kNo, Transpose::kNo, n, D, D, T(1), tensors.v, D, tensors.query, D, T(0),
                  projected_v_.data(), D);
  }
  const bool sums = mode.routing_sums && n > 0 && mode.fixed_scores == nullptr;
  parallel_.Run([&](int t) {
    const auto [begin, end] = parallel_.Slice(B, t, kRowGrain);
    if (sums) thread_sums_[t].Reset(block_);
    if (begin == end) return;
    const size_t rows = end - begin;
    // V follows W0 in memory, so one product gives the base output and A.
    Product(Transpose::kNo, Transpose::kYes, rows, O + n, D, x + begin * D, D, tensors.base_weight, D, kSet,
            &z_[begin * ldz], ldz);
    if (projected) {
      Product(Transpose::kNo, Transpose::kYes, rows, n, D, x + begin * D, D, projected_v_.data(), D, kSet,
              &z_[begin * ldz + O + n], ldz);
    }
    if (n > 0) {
      if (block_.unit_query) SquaredNorms(rows, D, x + begin * D, D, &nu_[begin]);
      for (size_t r = begin; r < end; ++r) {
        nu_[r] = block_.unit_query ? 1 / std::max(std::sqrt(nu_[r]), T(kMinQueryNorm)) : T(1);
      }
      const T* a = z_.data() + O;
      if (mode.fixed_scores == nullptr) {
        RouteForward(block_, tensors, gram_.data(), begin, end, a, z_.data() + r_column(), ldz, nu_.data(), raw_.data(),
                     s_.data(), gated_.data(), gap, sums ? &thread_sums_[t] : nullptr);
      } else {
        for (size_t r = begin; r < end; ++r) {
          std::copy_n(mode.fixed_scores, n, &s_[r * n]);
          for (size_t i = 0; i < n; ++i) gated_[r * n + i] = a[r * ldz + i] * s_[r * n + i];
        }
      }
      Product(Transpose::kNo, Transpose::kNo, rows, O, n, &gated_[begin * n], n, tensors.u, O, kAdd, &z_[begin * ldz],
              ldz);
    }
  });
  if (sums) {
    sums_.Reset(block_);
    for (const RoutingSums& part : thread_sums_) sums_.Add(part);
  }
  epilogue_.Forward(tensors, mode.batch_statistics, mode.dropout, z_.data(), ldz, B);
}

template <typename T>
RoutingLossGradient TrainBlock<T>::LossGradient(const LossWeights& weights) const {
  RoutingLossGradient out;
  out.active = stack() > 0 && (weights.load_balance != 0 || weights.router_z != 0);
  if (!out.active) return out;
  const double rows = static_cast<double>(B_), K = static_cast<double>(block_.experts);
  out.z_scale = 2 * weights.router_z / rows;
  for (size_t i = 0; i < block_.stack(); ++i) {
    const double f =
        block_.top_k > 0 ? sums_.kept[i] / (rows * static_cast<double>(block_.top_k)) : 2 * sums_.probability[i] / rows;
    out.g.push_back(weights.load_balance * K * f / rows);
  }
  return out;
}

template <typename T>
void TrainBlock<T>::Backward(const BlockTensors<const T>& tensors, const BlockBackwardMode& mode, T* doutput, T* dx,
                             std::vector<T>* scratch, const BlockTensors<T>& gradients) {
  const size_t D = block_.input, O = block_.width, n = stack(), ldz = stacked(), r_at = r_column();
  const bool projected = n > 0 && block_.projected_query;
  scratch->resize(std::max(scratch->size(), B_ * ldz));
  T* dz = scratch->data();
  dh_.resize(B_ * n);
  dnu_.resize(B_);
  epilogue_.Backward(tensors, doutput, dz, mode.backbone ? &gradients : nullptr);
  const RoutingLossGradient loss = LossGradient(mode.losses);
  parallel_.Run([&](int t) {
    const auto [begin, end] = parallel_.Slice(B_, t, kRowGrain);
    if (n > 0) thread_gradients_[t].Reset(block_);
    if (begin == end) return;
    const size_t rows = end - begin;
    if (n > 0) {
      Product(Transpose::kNo, Transpose::kYes, rows, n, O, dz + begin * ldz, ldz, tensors.u, O, kSet, &dh_[begin * n],
              n);
      RouteBackward(block_, tensors, gram_.data(), begin, end, z_.data() + O, z_.data() + r_at, ldz, nu_.data(),
                    raw_.data(), s_.data(), loss, dh_.data(), dz + O, dz + r_at, ldz, dnu_.data(),
                    &thread_gradients_[t]);
    }
    if (!mode.input) return;
    Product(Transpose::kNo, Transpose::kNo, rows, D, O + n, dz + begin * ldz, ldz, tensors.base_weight, D, kSet,
            dx + begin * D, D);
    if (projected) {
      Product(Transpose::kNo, Transpose::kNo, rows, D, n, dz + begin * ldz + r_at, ldz, projected_v_.data(), D, kAdd,
              dx + begin * D, D);
    }
    if (n == 0 || !block_.unit_query) return;
    for (size_t r = begin; r < end; ++r) {
      // d(1/|x|)/dx = -x / |x|^3; constant below the smallest norm.
      if (nu_[r] >= T(1 / kMinQueryNorm)) continue;
      const T factor = -dnu_[r] * nu_[r] * nu_[r] * nu_[r];
      for (size_t d = 0; d < D; ++d) dx[r * D + d] += factor * x_[r * D + d];
    }
  });
  if (n > 0 && mode.experts) {
    RoutingGradients<T>& sum = thread_gradients_[0];
    for (size_t t = 1; t < thread_gradients_.size(); ++t) sum.Add(thread_gradients_[t]);
    GramBackward(block_, tensors.v, sum.gram.data(), gradients.v);
    if (mode.losses.diversity != 0) DiversityLoss(block_, tensors.v, mode.losses.diversity, gradients.v);
    if (block_.calibrated) {
      gradients.alpha[0] += static_cast<T>(sum.alpha);
      for (size_t l = 0; l < block_.layers; ++l) gradients.tau[l] += static_cast<T>(sum.tau[l]);
      for (size_t i = 0; i < n; ++i) gradients.c[i] += static_cast<T>(sum.c[i]);
    }
  }
  // Each thread owns some rows of the gradient (of U, columns: it has few rows), so that nothing has to be added up
  // over threads.
  const size_t first = mode.backbone ? 0 : O;
  const size_t last = mode.experts ? O + n : O;
  if (projected && mode.experts) projected_v_gradient_.resize(n * D);
  parallel_.Run([&](int t) {
    const auto [begin, end] = parallel_.Slice(last > first ? last - first : 0, t);
    const size_t from = first + begin, to = first + end;
    Product(Transpose::kYes, Transpose::kNo, to - from, D, B_, dz + from, ldz, x_, D, kAdd,
            gradients.base_weight + from * D, D);
    if (n == 0 || !mode.experts) return;
    const auto [o_begin, o_end] = parallel_.Slice(O, t, kColumnGrain);
    Product(Transpose::kYes, Transpose::kNo, n, o_end - o_begin, B_, gated_.data(), n, dz + o_begin, ldz, kAdd,
            gradients.u + o_begin, O);
    if (!projected) return;
    const auto [u_begin, u_end] = parallel_.Slice(n, t);
    Product(Transpose::kYes, Transpose::kNo, u_end - u_begin, D, B_, dz + r_at + u_begin, ldz, x_, D, kSet,
            projected_v_gradient_.data() + u_begin * D, D);
  });
  if (!projected || !mode.experts) return;
  // P = V Wq: dV += dP Wq^T, dWq += V^T dP.
  parallel_.Run([&](int t) {
    const auto [v_begin, v_end] = parallel_.Slice(n, t);
    MatrixProduct(Transpose::kNo, Transpose::kYes, v_end - v_begin, D, D, T(1),
                  projected_v_gradient_.data() + v_begin * D, D, tensors.query, D, T(1), gradients.v + v_begin * D, D);
    const auto [begin, end] = parallel_.Slice(D, t);
    MatrixProduct(Transpose::kYes, Transpose::kNo, end - begin, D, n, T(1), tensors.v + begin, D,
                  projected_v_gradient_.data(), D, T(1), gradients.query + begin * D, D);
  });
}

template <typename T>
double TrainBlock<T>::RoutingLoss(const BlockTensors<const T>& tensors, const LossWeights& weights) const {
  if (stack() == 0) return 0;
  const double rows = static_cast<double>(B_), K = static_cast<double>(block_.experts);
  double loss = 0;
  for (size_t i = 0; i < block_.stack(); ++i) {
    const double p = sums_.probability[i] / rows;
    const double f = block_.top_k > 0 ? sums_.kept[i] / (rows * static_cast<double>(block_.top_k)) : p;
    loss += weights.load_balance * K * f * p;
  }
  for (const double excess : sums_.excess) loss += weights.router_z * excess / rows;
  if (weights.diversity != 0) loss += DiversityLoss<T>(block_, tensors.v, weights.diversity, nullptr);
  return loss;
}

template <typename T>
double DiversityLoss(const BlockSpec& block, const T* v, double weight, T* dv) {
  const size_t K = block.experts, D = block.input;
  const double scale = weight / static_cast<double>(std::max<size_t>(1, K * (K - 1)));
  double loss = 0;
  std::vector<T> unit(K * D), cosine(K * K), dunit(K * D);
  std::vector<T> norm(K);
  for (size_t l = 0; l < block.layers; ++l) {
    const T* V = v + l * K * D;
    for (size_t i = 0; i < K; ++i) {
      T squared = 0;
      for (size_t d = 0; d < D; ++d) squared += V[i * D + d] * V[i * D + d];
      norm[i] = std::sqrt(squared);
      for (size_t d = 0; d < D; ++d) unit[i * D + d] = norm[i] > 0 ? V[i * D + d] / norm[i] : T(0);
    }
    MatrixProduct(Transpose::kNo, Transpose::kYes, K, K, D, T(1), unit.data(), D, unit.data(), D, T(0), cosine.data(),
                  K);
    for (size_t i = 0; i < K; ++i) {
      cosine[i * K + i] = 0;  // a unit row's own product is 1 and stays it
      for (size_t j = 0; j < K; ++j) loss += scale * cosine[i * K + j] * cosine[i * K + j];
    }
    if (dv == nullptr) continue;
    MatrixProduct(Transpose::kNo, Transpose::kNo, K, D, K, static_cast<T>(4 * scale), cosine.data(), K, unit.data(), D,
                  T(0), dunit.data(), D);
    for (size_t i = 0; i < K; ++i) {
      if (norm[i] == 0) continue;
      T along = 0;
      for (size_t d = 0; d < D; ++d) along += dunit[i * D + d] * unit[i * D + d];
      for (size_t d = 0; d < D; ++d) {
        dv[(l * K + i) * D + d] += (dunit[i * D + d] - along * unit[i * D + d]) / norm[i];
      }
    }
  }
  return loss;
}

template class TrainBlock<float>;
template class TrainBlock<double>;
template double DiversityLoss(const BlockSpec&, const float*, double, float*);
template double DiversityLoss(const BlockSpec&, const double*, double, double*);

}  // namespace hilomoe
