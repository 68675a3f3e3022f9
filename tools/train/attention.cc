#include "tools/train/attention.h"

#include <algorithm>
#include <cmath>

#include "tools/train/matrix_product.h"

namespace hilomoe {

// The embeddings of rows [begin, end), those of several features side by side.
template <typename T>
void TrainAttention<T>::Gather(const FeatureTensors<const T>& features, const EncodedBatch& batch, size_t begin,
                               size_t end) {
  const auto gather = [&](const std::vector<int>& from, size_t first, size_t last, size_t width, T* out) {
    size_t column = 0;
    for (const int f : from) {
      const FeatureSpec& feature = spec_.features()[f];
      const T* table = features.tables[feature.table];
      const std::vector<uint32_t>& rows = batch.features[f].rows;
      for (size_t i = first; i < last; ++i) {
        std::copy_n(table + rows[i] * feature.width, feature.width, out + i * width + column);
      }
      column += feature.width;
    }
  };
  const std::vector<uint32_t>& offsets = batch.features[attention_.history[0]].offsets;
  gather(attention_.query, begin, end, attention_.query_width, e_.data());
  gather(attention_.history, offsets[begin], offsets[end], attention_.history_width, h_.data());
}

// a and c of row r.
template <typename T>
void TrainAttention<T>::Pool(size_t r, const uint32_t* offsets) {
  const size_t H = attention_.heads, dk = attention_.history_width, first = offsets[r], last = offsets[r + 1];
  std::fill_n(&c_[r * H * dk], H * dk, T(0));
  for (size_t head = 0; head < H && last > first; ++head) {
    const T* p = &p_[(r * H + head) * dk];
    T* c = &c_[(r * H + head) * dk];
    T largest = 0;
    for (size_t j = first; j < last; ++j) {
      T dot = 0;
      for (size_t d = 0; d < dk; ++d) dot += p[d] * h_[j * dk + d];
      a_[j * H + head] = dot;
      largest = j == first ? dot : std::max(largest, dot);
    }
    T sum = 0;
    for (size_t j = first; j < last; ++j) sum += a_[j * H + head] = std::exp(a_[j * H + head] - largest);
    for (size_t j = first; j < last; ++j) {
      const T a = a_[j * H + head] /= sum;
      for (size_t d = 0; d < dk; ++d) c[d] += a * h_[j * dk + d];
    }
  }
}

// dp and dh of row r from dc.
template <typename T>
void TrainAttention<T>::PoolBackward(size_t r, const uint32_t* offsets) {
  const size_t H = attention_.heads, dk = attention_.history_width, first = offsets[r], last = offsets[r + 1];
  std::fill_n(&dp_[r * H * dk], H * dk, T(0));
  std::fill(dh_.begin() + static_cast<ptrdiff_t>(first * dk), dh_.begin() + static_cast<ptrdiff_t>(last * dk), T(0));
  for (size_t head = 0; head < H && last > first; ++head) {
    const T* p = &p_[(r * H + head) * dk];
    const T* c = &c_[(r * H + head) * dk];
    const T* dc = &dc_[(r * H + head) * dk];
    T* dp = &dp_[(r * H + head) * dk];
    T mean = 0;  // sum_j a_j (dc . h_j) = dc . c
    for (size_t d = 0; d < dk; ++d) mean += dc[d] * c[d];
    for (size_t j = first; j < last; ++j) {
      const T* h = &h_[j * dk];
      T* dh = &dh_[j * dk];
      T da = 0;
      for (size_t d = 0; d < dk; ++d) da += dc[d] * h[d];
      const T a = a_[j * H + head], ds = a * (da - mean);
      for (size_t d = 0; d < dk; ++d) {
        dh[d] += a * dc[d] + ds * p[d];
        dp[d] += ds * h[d];
      }
    }
  }
}

template <typename T>
void TrainAttention<T>::Forward(const AttentionTensors<const T>& tensors, const FeatureTensors<const T>& features,
                                const EncodedBatch& batch, T* x) {
  const size_t B = batch.candidate_rows, H = attention_.heads, w = attention_.head_width;
  const size_t dq = attention_.query_width, dk = attention_.history_width, inner = attention_.inner_width();
  const uint32_t* offsets = batch.features[attention_.history[0]].offsets.data();
  const size_t positions = batch.features[attention_.history[0]].rows.size(), D = spec_.input_width();
  e_.resize(B * dq);
  h_.resize(positions * dk);
  q_.resize(B * inner);
  v_.resize(B * inner);
  p_.resize(B * H * dk);
  c_.resize(B * H * dk);
  a_.resize(positions * H);
  const T scale = 1 / std::sqrt(static_cast<T>(w));
  parallel_.Run([&](int t) {
    const auto [begin, end] = parallel_.Slice(B, t);
    const size_t rows = end - begin;
    if (rows == 0) return;
    Gather(features, batch, begin, end);
    MatrixProduct(Transpose::kNo, Transpose::kYes, rows, inner, dq, T(1), &e_[begin * dq], dq, tensors.query, dq, T(0),
                  &q_[begin * inner], inner);
    for (size_t head = 0; head < H; ++head) {
      MatrixProduct(Transpose::kNo, Transpose::kNo, rows, dk, w, scale, &q_[begin * inner + head * w], inner,
                    tensors.key + head * w * dk, dk, T(0), &p_[(begin * H + head) * dk], H * dk);
    }
    for (size_t r = begin; r < end; ++r) Pool(r, offsets);
    for (size_t head = 0; head < H; ++head) {
      MatrixProduct(Transpose::kNo, Transpose::kYes, rows, w, dk, T(1), &c_[(begin * H + head) * dk], H * dk,
                    tensors.value + head * w * dk, dk, T(0), &v_[begin * inner + head * w], inner);
    }
    MatrixProduct(Transpose::kNo, Transpose::kYes, rows, attention_.output_width, inner, T(1), &v_[begin * inner],
                  inner, tensors.output, inner, T(0), x + begin * D + attention_.input_offset, D);
  });
}

template <typename T>
void TrainAttention<T>::Backward(const AttentionTensors<const T>& tensors, const EncodedBatch& batch, const T* dx,
                                 const AttentionTensors<T>& gradients, std::vector<EmbeddingGradient<T>>* embeddings) {
  const size_t B = batch.candidate_rows, H = attention_.heads, w = attention_.head_width;
  const size_t dq = attention_.query_width, dk = attention_.history_width, inner = attention_.inner_width();
  const size_t out = attention_.output_width, D = spec_.input_width();
  const uint32_t* offsets = batch.features[attention_.history[0]].offsets.data();
  de_.resize(e_.size());
  dh_.resize(h_.size());
  dq_.resize(q_.size());
  dp_.resize(p_.size());
  dc_.resize(c_.size());
  dv_.resize(v_.size());
  const T scale = 1 / std::sqrt(static_cast<T>(w));
  const T* dout = dx + attention_.input_offset;
  parallel_.Run([&](int t) {
    const auto [begin, end] = parallel_.Slice(B, t);
    const size_t rows = end - begin;
    if (rows == 0) return;
    MatrixProduct(Transpose::kNo, Transpose::kNo, rows, inner, out, T(1), dout + begin * D, D, tensors.output, inner,
                  T(0), &dv_[begin * inner], inner);
    for (size_t head = 0; head < H; ++head) {
      MatrixProduct(Transpose::kNo, Transpose::kNo, rows, dk, w, T(1), &dv_[begin * inner + head * w], inner,
                    tensors.value + head * w * dk, dk, T(0), &dc_[(begin * H + head) * dk], H * dk);
    }
    for (size_t r = begin; r < end; ++r) PoolBackward(r, offsets);
    for (size_t head = 0; head < H; ++head) {
      MatrixProduct(Transpose::kNo, Transpose::kYes, rows, w, dk, scale, &dp_[(begin * H + head) * dk], H * dk,
                    tensors.key + head * w * dk, dk, T(0), &dq_[begin * inner + head * w], inner);
    }
    MatrixProduct(Transpose::kNo, Transpose::kNo, rows, dq, inner, T(1), &dq_[begin * inner], inner, tensors.query, dq,
                  T(0), &de_[begin * dq], dq);
  });
  // Each thread owns some rows of every weight.
  parallel_.Run([&](int t) {
    const auto [o_begin, o_end] = parallel_.Slice(out, t);
    MatrixProduct(Transpose::kYes, Transpose::kNo, o_end - o_begin, inner, B, T(1), dout + o_begin, D, v_.data(), inner,
                  T(1), gradients.output + o_begin * inner, inner);
    const auto [q_begin, q_end] = parallel_.Slice(inner, t);
    MatrixProduct(Transpose::kYes, Transpose::kNo, q_end - q_begin, dq, B, T(1), dq_.data() + q_begin, inner, e_.data(),
                  dq, T(1), gradients.query + q_begin * dq, dq);
    const auto [begin, end] = parallel_.Slice(w, t);
    for (size_t head = 0; head < H; ++head) {
      const size_t row = head * w + begin;
      MatrixProduct(Transpose::kYes, Transpose::kNo, end - begin, dk, B, T(1), dv_.data() + row, inner,
                    c_.data() + head * dk, H * dk, T(1), gradients.value + row * dk, dk);
      MatrixProduct(Transpose::kYes, Transpose::kNo, end - begin, dk, B, scale, q_.data() + row, inner,
                    dp_.data() + head * dk, H * dk, T(1), gradients.key + row * dk, dk);
    }
  });
  const auto add = [&](const std::vector<int>& features, const std::vector<T>& values, size_t ld) {
    size_t column = 0;
    for (const int f : features) {
      embeddings->push_back({static_cast<size_t>(f), values.data() + column, ld});
      column += spec_.features()[f].width;
    }
  };
  add(attention_.query, de_, dq);
  add(attention_.history, dh_, dk);
}

template class TrainAttention<float>;
template class TrainAttention<double>;

}  // namespace hilomoe
