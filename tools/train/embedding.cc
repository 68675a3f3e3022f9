#include "tools/train/embedding.h"

#include <algorithm>

#include "tools/train/elementwise.h"

namespace hilomoe {

template <typename T>
Embedding<T>::Embedding(const ModelSpec& spec, const TensorRegistry& registry, Parallel& parallel)
    : spec_(spec), registry_(registry), parallel_(parallel), table_gradients_(registry.gathered()) {
  for (size_t i = 0; i < table_gradients_.size(); ++i) {
    table_gradients_[i].parts.resize(static_cast<size_t>(parallel.threads()));
    table_gradients_[i].slot.assign(registry.tensors()[i].shape[0], -1);
  }
}

template <typename T>
void Embedding<T>::ForwardFeature(const FeatureTensors<const T>& tensors, const EncodedBatch& batch, size_t f,
                                  size_t begin, size_t end, T* x) const {
  const FeatureSpec& feature = spec_.features()[f];
  const EncodedFeature& encoded = batch.features[f];
  const size_t D = spec_.input_width(), d = feature.width;
  if (feature.is_unpooled()) return;
  const bool shared = feature.is_context() && batch.context_rows == 1;  // one row for all
  const T* table = feature.table >= 0 ? tensors.tables[feature.table] : nullptr;
  const T* weight = tensors.numeric_weight[f];
  if (table != nullptr && !feature.is_pooled() && !shared) {
    GatherEmbeddings(end - begin, d, table, encoded.rows.data() + begin, x + begin * D + feature.input_offset, D);
    return;
  }
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
void Embedding<T>::AddLinear(const FeatureTensors<const T>& tensors, const EncodedBatch& batch, size_t begin,
                             size_t end, T* logits) const {
  for (size_t f = 0; f < spec_.features().size(); ++f) {
    const T* weight = tensors.linear[f];
    if (weight == nullptr) continue;
    const FeatureSpec& feature = spec_.features()[f];
    const EncodedFeature& encoded = batch.features[f];
    const bool shared = feature.is_context() && batch.context_rows == 1;
    for (size_t row = begin; row < end; ++row) {
      const size_t r = shared ? 0 : row;
      if (feature.is_number()) {
        logits[row] += T(encoded.values[r]) * weight[0];
      } else if (!feature.is_pooled()) {
        logits[row] += weight[encoded.rows[r]];
      } else if (const uint32_t first = encoded.offsets[r], last = encoded.offsets[r + 1]; last > first) {
        T sum = 0;
        for (uint32_t i = first; i < last; ++i) sum += weight[encoded.rows[i]];
        logits[row] += sum / static_cast<T>(last - first);
      }
    }
  }
}

template <typename T>
class Embedding<T>::Rows {
 public:
  Rows(TableGradient<T>& gradient, size_t part, size_t width)
      : gradient_(gradient),
        own_(gradient.parts[part]),
        part_(static_cast<uint32_t>(part)),
        parts_(static_cast<uint32_t>(gradient.parts.size())),
        mask_((parts_ & (parts_ - 1)) == 0 ? parts_ - 1 : 0),
        width_(width) {}

  bool Owns(uint32_t row) const { return (mask_ != 0 ? row & mask_ : row % parts_) == part_; }
  void Add(uint32_t row, T scale, const T* from) {
    int32_t& slot = gradient_.slot[row];
    if (slot < 0) {
      slot = static_cast<int32_t>(own_.rows.size());
      own_.rows.push_back(row);
      own_.values.resize(own_.values.size() + width_, T(0));
    }
    T* to = &own_.values[static_cast<size_t>(slot) * width_];
    for (size_t j = 0; j < width_; ++j) to[j] += scale * from[j];
  }

 private:
  TableGradient<T>& gradient_;
  typename TableGradient<T>::Part& own_;
  const uint32_t part_, parts_;
  const uint32_t mask_;  // of row % parts, where that is a power of two: a division an id costs more than its row
  const size_t width_;
};

// What feature f adds to the rows of its tables that belong to `part`. Every thread walks over all ids, but sums up its
// own rows alone, in the order of the batch: no locks, and the same sums whatever the number of threads.
template <typename T>
void Embedding<T>::Scatter(const EncodedBatch& batch, const T* dx, const T* dlogits, size_t f, size_t part) {
  const FeatureSpec& feature = spec_.features()[f];
  if (feature.is_unpooled()) return;
  const EncodedFeature& encoded = batch.features[f];
  const size_t D = spec_.input_width();
  const int linear = registry_.LinearTable(f);
  Rows rows(table_gradients_[static_cast<size_t>(feature.table)], part, feature.width);
  Rows linear_rows(table_gradients_[static_cast<size_t>(std::max(linear, 0))], part, 1);
  for (size_t r = 0; r < batch.candidate_rows; ++r) {
    const size_t first = feature.is_pooled() ? encoded.offsets[r] : r;
    const size_t last = feature.is_pooled() ? encoded.offsets[r + 1] : r + 1;
    const T scale = last - first > 1 ? T(1) / static_cast<T>(last - first) : T(1);
    for (size_t i = first; i < last; ++i) {
      if (!rows.Owns(encoded.rows[i])) continue;
      rows.Add(encoded.rows[i], scale, dx + r * D + feature.input_offset);
      if (linear >= 0) linear_rows.Add(encoded.rows[i], scale, &dlogits[r]);
    }
  }
}

template <typename T>
void Embedding<T>::ScatterMore(const EncodedBatch& batch, const EmbeddingGradient<T>& more, size_t part) {
  const FeatureSpec& feature = spec_.features()[more.feature];
  const std::vector<uint32_t>& ids = batch.features[more.feature].rows;
  Rows rows(table_gradients_[static_cast<size_t>(feature.table)], part, feature.width);
  for (size_t i = 0; i < ids.size(); ++i) {
    if (rows.Owns(ids[i])) rows.Add(ids[i], T(1), more.values + i * more.ld);
  }
}

template <typename T>
void Embedding<T>::BackwardNumber(const EncodedBatch& batch, const T* dx, const T* dlogits, size_t f,
                                  const FeatureTensors<T>& gradients) const {
  const FeatureSpec& feature = spec_.features()[f];
  const std::vector<float>& values = batch.features[f].values;
  for (size_t r = 0; r < batch.candidate_rows; ++r) {
    const T* from = dx + r * spec_.input_width() + feature.input_offset;
    for (size_t j = 0; j < feature.width; ++j) gradients.numeric_weight[f][j] += T(values[r]) * from[j];
    if (gradients.linear[f] != nullptr) gradients.linear[f][0] += T(values[r]) * dlogits[r];
  }
}

template <typename T>
void Embedding<T>::Backward(const EncodedBatch& batch, const T* dx, const T* dlogits,
                            const std::vector<EmbeddingGradient<T>>& more, const FeatureTensors<T>& gradients) {
  const size_t parts = static_cast<size_t>(parallel_.threads());
  parallel_.Run([&](int t) {
    const size_t part = static_cast<size_t>(t);
    for (TableGradient<T>& gradient : table_gradients_) {
      typename TableGradient<T>::Part& own = gradient.parts[part];
      for (const uint32_t row : own.rows) gradient.slot[row] = -1;
      own.rows.clear();
      own.values.clear();
    }
    for (size_t f = 0; f < spec_.features().size(); ++f) {
      if (spec_.features()[f].table >= 0) {
        Scatter(batch, dx, dlogits, f, part);
      } else if (f % parts == part) {
        BackwardNumber(batch, dx, dlogits, f, gradients);
      }
    }
    for (const EmbeddingGradient<T>& from : more) ScatterMore(batch, from, part);
  });
}

template class Embedding<float>;
template class Embedding<double>;

}  // namespace hilomoe
