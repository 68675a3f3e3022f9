#include "tools/train/epilogue.h"

#include <algorithm>
#include <cmath>

#include "model/reference.h"
#include "tools/train/elementwise.h"

namespace hilomoe {
namespace {

constexpr size_t kRowGrain = 16;     // rows of a thread's slice
constexpr size_t kColumnGrain = 16;  // columns of a thread's slice: a cache line of floats
constexpr double kMomentum = 0.1;

}  // namespace

template <typename T>
Epilogue<T>::Epilogue(const BlockSpec& block, Parallel& parallel)
    : block_(block),
      parallel_(parallel),
      mean_(block.width),
      variance_(block.width),
      inverse_deviation_(block.width),
      scale_(block.width),
      shift_(block.width),
      centre_(block.width),
      thread_sums_(static_cast<size_t>(parallel.threads())),
      dice_(block.width) {}

// Two sums a column over all rows; every thread adds up its own rows, and the threads' sums are added in order.
template <typename T>
typename Epilogue<T>::Sums Epilogue<T>::SumOverRows(
    const std::function<void(size_t begin, size_t end, double* first, double* second)>& add) {
  const size_t O = block_.width;
  parallel_.Run([&](int t) {
    Sums& sums = thread_sums_[static_cast<size_t>(t)];
    sums.assign(2 * O, 0);
    const auto [begin, end] = parallel_.Slice(B_, t, kRowGrain);
    add(begin, end, sums.data(), sums.data() + O);
  });
  Sums all = thread_sums_[0];
  for (size_t t = 1; t < thread_sums_.size(); ++t) {
    for (size_t i = 0; i < all.size(); ++i) all[i] += thread_sums_[t][i];
  }
  return all;
}

template <typename T>
void Epilogue<T>::MeasureBatch(const T* bias) {
  const size_t O = block_.width;
  const Sums sums = SumOverRows([&](size_t begin, size_t end, double* sum, double* squared) {
    AddColumnSums(end - begin, O, z_ + begin * ldz_, ldz_, sum, squared);
  });
  for (size_t o = 0; o < O; ++o) {
    const double mean = sums[o] / static_cast<double>(B_);
    mean_[o] = static_cast<T>(mean) + bias[o];
    variance_[o] = static_cast<T>(std::max(0.0, sums[O + o] / static_cast<double>(B_) - mean * mean));
  }
}

template <typename T>
void Epilogue<T>::Forward(const BlockTensors<const T>& tensors, bool batch_statistics, const DropoutMask& dropout,
                          const T* z, size_t ldz, size_t B) {
  batch_statistics_ = batch_statistics;
  dropout_ = dropout;
  z_ = z;
  ldz_ = ldz;
  B_ = B;
  const size_t O = block_.width;
  const T* bias = tensors.base_bias;
  output_.resize(B * O);
  if (keeps_normalised()) normalised_.resize(B * O);
  if (!block_.batch_norm) {
    std::fill(scale_.begin(), scale_.end(), T(1));
    std::copy_n(bias, O, shift_.begin());
  } else {
    if (batch_statistics) {
      MeasureBatch(bias);
    } else {
      std::copy_n(tensors.running_mean, O, mean_.begin());
      std::copy_n(tensors.running_variance, O, variance_.begin());
    }
    for (size_t o = 0; o < O; ++o) {
      inverse_deviation_[o] = 1 / std::sqrt(variance_[o] + T(kBatchNormEpsilon));
      scale_[o] = tensors.gamma[o] * inverse_deviation_[o];
      centre_[o] = mean_[o] - bias[o];
      shift_[o] = tensors.beta[o] - centre_[o] * scale_[o];
    }
  }
  const DropoutMask none;
  parallel_.Run([&](int t) {
    const auto [begin, end] = parallel_.Slice(B, t, kRowGrain);
    Normalise(end - begin, O, z + begin * ldz, ldz, scale_.data(), shift_.data(), block_.activation == v1::Block::RELU,
              keeps_normalised() ? none : dropout, begin * O,
              (keeps_normalised() ? normalised_ : output_).data() + begin * O);
  });
  if (!keeps_normalised()) return;
  parallel_.Run([&](int t) {
    const auto [begin, end] = parallel_.Slice(O, t, kColumnGrain);
    if (block_.activation == v1::Block::SILU) {
      SiluForward(normalised_.data(), B, O, begin, end, output_.data());
    } else {
      dice_.Forward(tensors, batch_statistics, normalised_.data(), B, O, begin, end, output_.data());
    }
  });
  if (dropout.active()) {
    parallel_.Run([&](int t) {
      const auto [begin, end] = parallel_.Slice(B * O, t, kColumnGrain);
      ApplyDropout(end - begin, dropout, begin, output_.data() + begin);
    });
  }
}

// From doutput to the gradient of what the activation saw.
template <typename T>
void Epilogue<T>::ActivationBackward(const BlockTensors<const T>& tensors, T* doutput, T* dz,
                                     const BlockTensors<T>* gradients) {
  const size_t O = block_.width;
  const bool relu = block_.activation == v1::Block::RELU;
  parallel_.Run([&](int t) {
    const auto [begin, end] = parallel_.Slice(B_, t, kRowGrain);
    if (relu) {
      const T factor = dropout_.active() ? T(dropout_.scale()) : T(1);
      ReluBackward(end - begin, O, output_.data() + begin * O, doutput + begin * O, factor, dz + begin * ldz_, ldz_);
      return;
    }
    if (dropout_.active()) ApplyDropout((end - begin) * O, dropout_, begin * O, doutput + begin * O);
    if (keeps_normalised()) return;
    for (size_t r = begin; r < end; ++r) std::copy_n(doutput + r * O, O, dz + r * ldz_);
  });
  if (!keeps_normalised()) return;
  parallel_.Run([&](int t) {
    const auto [begin, end] = parallel_.Slice(O, t, kColumnGrain);
    if (block_.activation == v1::Block::SILU) {
      SiluBackward(normalised_.data(), doutput, B_, O, begin, end, dz, ldz_);
    } else {
      dice_.Backward(tensors, batch_statistics_, normalised_.data(), doutput, B_, O, begin, end, dz, ldz_,
                     gradients != nullptr ? gradients->dice : nullptr);
    }
  });
}

// dz back through batch norm: with n the normalised z and dn its gradient, `sums` those of dn and dn n,
//   dz = gamma / sigma (dn - mean(dn) - n mean(dn n)), the means only when the batch's statistics were used.
template <typename T>
void Epilogue<T>::NormBackward(const Sums& sums, T* dz, const BlockTensors<T>* gradients) {
  const size_t O = block_.width;
  std::vector<T> a(O), b(O);
  for (size_t o = 0; o < O; ++o) {
    if (batch_statistics_) {
      a[o] = static_cast<T>(sums[o] / static_cast<double>(B_));
      b[o] = static_cast<T>(sums[O + o] / static_cast<double>(B_)) * inverse_deviation_[o];
    }
    if (gradients == nullptr) continue;
    gradients->gamma[o] += static_cast<T>(sums[O + o]);
    gradients->beta[o] += static_cast<T>(sums[o]);
    // The batch's own mean takes any bias away again.
    if (!batch_statistics_) gradients->base_bias[o] += static_cast<T>(sums[o]) * scale_[o];
  }
  parallel_.Run([&](int t) {
    const auto [begin, end] = parallel_.Slice(B_, t, kRowGrain);
    NormaliseBackward(end - begin, O, z_ + begin * ldz_, ldz_, scale_.data(), centre_.data(), a.data(), b.data(),
                      dz + begin * ldz_);
  });
}

template <typename T>
void Epilogue<T>::Backward(const BlockTensors<const T>& tensors, T* doutput, T* dz, const BlockTensors<T>* gradients) {
  const size_t O = block_.width;
  const T factor = dropout_.active() ? T(dropout_.scale()) : T(1);
  if (block_.batch_norm && block_.activation == v1::Block::RELU) {
    NormBackward(SumOverRows([&](size_t begin, size_t end, double* sum, double* sum_normalised) {
                   ReluBackwardSums(end - begin, O, output_.data() + begin * O, doutput + begin * O, factor,
                                    z_ + begin * ldz_, dz + begin * ldz_, ldz_, centre_.data(),
                                    inverse_deviation_.data(), sum, sum_normalised);
                 }),
                 dz, gradients);
    return;
  }
  ActivationBackward(tensors, doutput, dz, gradients);
  if (block_.batch_norm) {
    NormBackward(SumOverRows([&](size_t begin, size_t end, double* sum, double* sum_normalised) {
                   AddBackwardSums(end - begin, O, z_ + begin * ldz_, dz + begin * ldz_, ldz_, centre_.data(),
                                   inverse_deviation_.data(), sum, sum_normalised);
                 }),
                 dz, gradients);
    return;
  }
  if (gradients == nullptr) return;
  const Sums sums = SumOverRows([&](size_t begin, size_t end, double* sum, double* squared) {
    AddColumnSums(end - begin, O, dz + begin * ldz_, ldz_, sum, squared);
  });
  for (size_t o = 0; o < O; ++o) gradients->base_bias[o] += static_cast<T>(sums[o]);
}

template <typename T>
void Epilogue<T>::UpdateStatistics(const BlockTensors<T>& tensors) const {
  if (!batch_statistics_ || B_ < 2) return;
  const double unbiased = static_cast<double>(B_) / static_cast<double>(B_ - 1);
  const auto move = [&](const std::vector<T>& mean, const std::vector<T>& variance, T* to_mean, T* to_variance) {
    for (size_t o = 0; o < block_.width; ++o) {
      to_mean[o] += static_cast<T>(kMomentum * (mean[o] - to_mean[o]));
      to_variance[o] += static_cast<T>(kMomentum * (unbiased * variance[o] - to_variance[o]));
    }
  };
  if (block_.batch_norm) move(mean_, variance_, tensors.running_mean, tensors.running_variance);
  if (tensors.dice != nullptr) move(dice_.mean(), dice_.variance(), tensors.dice_mean, tensors.dice_variance);
}

template class Epilogue<float>;
template class Epilogue<double>;

}  // namespace hilomoe
