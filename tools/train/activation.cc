#include "tools/train/activation.h"

#include <algorithm>
#include <cmath>

#include "model/reference.h"

namespace hilomoe {
namespace {

template <typename T>
T Logistic(T x) {
  return 1 / (1 + std::exp(-x));
}

}  // namespace

template <typename T>
void SiluForward(const T* n, size_t B, size_t O, size_t begin, size_t end, T* out) {
  for (size_t r = 0; r < B; ++r) {
    for (size_t o = begin; o < end; ++o) out[r * O + o] = n[r * O + o] * Logistic(n[r * O + o]);
  }
}

template <typename T>
void SiluBackward(const T* n, const T* dout, size_t B, size_t O, size_t begin, size_t end, T* dn, size_t lddn) {
  for (size_t r = 0; r < B; ++r) {
    for (size_t o = begin; o < end; ++o) {
      const T value = n[r * O + o], p = Logistic(value);
      dn[r * lddn + o] = dout[r * O + o] * (p + value * p * (1 - p));
    }
  }
}

template <typename T>
void Dice<T>::Forward(const BlockTensors<const T>& tensors, bool batch_statistics, const T* n, size_t B, size_t O,
                      size_t begin, size_t end, T* out) {
  if (batch_statistics) {
    std::vector<double> sum(end - begin), squared(end - begin);
    for (size_t r = 0; r < B; ++r) {
      for (size_t o = begin; o < end; ++o) {
        const double distance = n[r * O + o] - n[o];  // as in batch norm: from the first row
        sum[o - begin] += distance;
        squared[o - begin] += distance * distance;
      }
    }
    for (size_t o = begin; o < end; ++o) {
      const double mean = sum[o - begin] / static_cast<double>(B);
      mean_[o] = static_cast<T>(mean + n[o]);
      variance_[o] = static_cast<T>(std::max(0.0, squared[o - begin] / static_cast<double>(B) - mean * mean));
    }
  } else {
    std::copy(tensors.dice_mean + begin, tensors.dice_mean + end, &mean_[begin]);
    std::copy(tensors.dice_variance + begin, tensors.dice_variance + end, &variance_[begin]);
  }
  for (size_t o = begin; o < end; ++o) inverse_deviation_[o] = 1 / std::sqrt(variance_[o] + T(kBatchNormEpsilon));
  for (size_t r = 0; r < B; ++r) {
    for (size_t o = begin; o < end; ++o) {
      const T value = n[r * O + o], p = Logistic((value - mean_[o]) * inverse_deviation_[o]);
      out[r * O + o] = value * (p + tensors.dice[o] * (1 - p));
    }
  }
}

template <typename T>
void Dice<T>::Backward(const BlockTensors<const T>& tensors, bool batch_statistics, const T* n, const T* dout, size_t B,
                       size_t O, size_t begin, size_t end, T* dn, size_t lddn, T* da) const {
  // With z = (n - mean) / deviation: dz = dout n (1 - a) p (1 - p), then as through batch norm.
  std::vector<double> sum(end - begin), sum_z(end - begin), sum_a(end - begin);
  const auto at = [&](size_t r, size_t o, T* z, T* p) {
    *z = (n[r * O + o] - mean_[o]) * inverse_deviation_[o];
    *p = Logistic(*z);
    return dout[r * O + o] * n[r * O + o] * (1 - tensors.dice[o]) * *p * (1 - *p);
  };
  for (size_t r = 0; r < B; ++r) {
    for (size_t o = begin; o < end; ++o) {
      T z, p;
      const T dz = at(r, o, &z, &p);
      sum[o - begin] += dz;
      sum_z[o - begin] += dz * z;
      sum_a[o - begin] += dout[r * O + o] * n[r * O + o] * (1 - p);
    }
  }
  for (size_t o = begin; o < end; ++o) {
    if (da != nullptr) da[o] += static_cast<T>(sum_a[o - begin]);
    // From here on the means, which only the batch's own statistics bring in.
    sum[o - begin] = batch_statistics ? sum[o - begin] / static_cast<double>(B) : 0;
    sum_z[o - begin] = batch_statistics ? sum_z[o - begin] / static_cast<double>(B) : 0;
  }
  for (size_t r = 0; r < B; ++r) {
    for (size_t o = begin; o < end; ++o) {
      T z, p;
      const T dz = at(r, o, &z, &p);
      const T through_z = dz - static_cast<T>(sum[o - begin]) - z * static_cast<T>(sum_z[o - begin]);
      dn[r * lddn + o] = dout[r * O + o] * (p + tensors.dice[o] * (1 - p)) + inverse_deviation_[o] * through_z;
    }
  }
}

template void SiluForward(const float*, size_t, size_t, size_t, size_t, float*);
template void SiluForward(const double*, size_t, size_t, size_t, size_t, double*);
template void SiluBackward(const float*, const float*, size_t, size_t, size_t, size_t, float*, size_t);
template void SiluBackward(const double*, const double*, size_t, size_t, size_t, size_t, double*, size_t);
template class Dice<float>;
template class Dice<double>;

}  // namespace hilomoe
