#include "tools/train/embedding.h"

#include <algorithm>

namespace hilomoe {

template <typename T>
Embedding<T>::Embedding(const ModelSpec& spec, const std::vector<uint32_t>& table_rows, Parallel& parallel)
    : spec_(spec), parallel_(parallel), table_gradients_(spec.tables().size()) {
  for (size_t i = 0; i < table_gradients_.size(); ++i) {
    table_gradients_[i].parts.resize(static_cast<size_t>(parallel.threads()));
    table_gradients_[i].slot.assign(table_rows[i], -1);
  }
}

template <typename T>
void Embedding<T>::ForwardFeature(const FeatureTensors<const T>& tensors, const EncodedBatch& batch, size_t f,
                                  size_t begin, size_t end, T* x) const {
  const FeatureSpec& feature = spec_.features()[f];
  const EncodedFeature& encoded = batch.features[f];
  const size_t D = spec_.input_width(), d = feature.width;
  const bool shared = feature.is_context() && batch.context_rows == 1;  // one row for all
  const T* table = feature.table >= 0 ? tensors.tables[feature.table] : nullptr;
  const T* weight = tensors.numeric_weight[f];
  for (size_t row = begin; row < end; ++row) {
    const size_t r = shared ? 0 : row;
    T* out = x + row * D + feature.input_offset;
    if (feature.is_number()) {
      if (d == 0) out[0] = T(encoded.values[r]);
      for (size_t i = 0; i < d; ++i) out[i] = T(encoded.values[r]) * weight[i];
      if (feature.missing_indicator) out[std::max<size_t>(d, 1)] = T(encoded.missing[r]);
      continue;
    }
    if (!feature.is_pooled()) {
      std::copy_n(table + encoded.rows[r] * d, d, out);
      continue;
    }
    std::fill_n(out, d, T(0));
    const uint32_t first = encoded.offsets[r], last = encoded.offsets[r + 1];
    for (uint32_t i = first; i < last; ++i) {
      const T* from = table + encoded.rows[i] * d;
      for (size_t j = 0; j < d; ++j) out[j] += from[j];
    }
    const T scale = last > first ? T(1) / static_cast<T>(last - first) : T(0);
    for (size_t j = 0; j < d; ++j) out[j] *= scale;
  }
}

template <typename T>
void Embedding<T>::Forward(const FeatureTensors<const T>& tensors, const EncodedBatch& batch, T* x) {
  parallel_.Run([&](int t) {
    const auto [begin, end] = parallel_.Slice(batch.candidate_rows, t);
    for (size_t f = 0; f < spec_.features().size(); ++f) ForwardFeature(tensors, batch, f, begin, end, x);
  });
}

template <typename T>
T* Embedding<T>::Row(size_t table, uint32_t row, size_t part) {
  TableGradient<T>& gradient = table_gradients_[table];
  typename TableGradient<T>::Part& own = gradient.parts[part];
  const size_t d = spec_.tables()[table].width;
  if (gradient.slot[row] < 0) {
    gradient.slot[row] = static_cast<int32_t>(own.rows.size());
    own.rows.push_back(row);
    own.values.resize(own.values.size() + d, T(0));
  }
  return &own.values[static_cast<size_t>(gradient.slot[row]) * d];
}

// What feature f adds to the rows of its table that belong to `part`. Every thread walks over all ids, but sums up its
// own rows alone, in the order of the batch: no locks, and the same sums whatever the number of threads.
template <typename T>
void Embedding<T>::Scatter(const EncodedBatch& batch, const T* dx, size_t f, size_t part, size_t parts) {
  const FeatureSpec& feature = spec_.features()[f];
  const EncodedFeature& encoded = batch.features[f];
  const size_t D = spec_.input_width(), d = feature.width;
  const size_t table = static_cast<size_t>(feature.table);
  for (size_t r = 0; r < batch.candidate_rows; ++r) {
    const T* from = dx + r * D + feature.input_offset;
    const size_t first = feature.is_pooled() ? encoded.offsets[r] : r;
    const size_t last = feature.is_pooled() ? encoded.offsets[r + 1] : r + 1;
    const T scale = last - first > 1 ? T(1) / static_cast<T>(last - first) : T(1);
    for (size_t i = first; i < last; ++i) {
      if (encoded.rows[i] % parts != part) continue;
      T* to = Row(table, encoded.rows[i], part);
      for (size_t j = 0; j < d; ++j) to[j] += scale * from[j];
    }
  }
}

template <typename T>
void Embedding<T>::Backward(const EncodedBatch& batch, const T* dx, const FeatureTensors<T>& gradients) {
  const size_t parts = static_cast<size_t>(parallel_.threads());
  parallel_.Run([&](int t) {
    const size_t part = static_cast<size_t>(t);
    for (TableGradient<T>& gradient : table_gradients_) {
      typename TableGradient<T>::Part& own = gradient.parts[part];
      for (const uint32_t row : own.rows) gradient.slot[row] = -1;
      own.rows.clear();
      own.values.clear();
    }
    const size_t D = spec_.input_width();
    for (size_t f = 0; f < spec_.features().size(); ++f) {
      const FeatureSpec& feature = spec_.features()[f];
      if (feature.table >= 0) {
        Scatter(batch, dx, f, part, parts);
      } else if (feature.width > 0 && f % parts == part) {
        T* gradient = gradients.numeric_weight[f];
        for (size_t r = 0; r < batch.candidate_rows; ++r) {
          const T* from = dx + r * D + feature.input_offset;
          for (size_t j = 0; j < feature.width; ++j) gradient[j] += T(batch.features[f].values[r]) * from[j];
        }
      }
    }
  });
}

template class Embedding<float>;
template class Embedding<double>;

}  // namespace hilomoe
