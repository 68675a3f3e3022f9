#include "runtime/served_attention.h"

namespace hilomoe {

ServedAttention::ServedAttention(const ModelSpec& spec, size_t index,
                                 const ServingAttentionTensors<const StoredMatrix>& matrices)
    : spec_(spec),
      attention_(spec.attention()[index]),
      score_(*matrices.score, 0, attention_.query_width),
      output_(*matrices.output, 0, pooled_width()) {}

bool ServedAttention::SharesHistory(const EncodedBatch& batch) const {
  return batch.context_rows == 1 && spec_.features()[attention_.history[0]].is_context();
}

ServedAttention::Runner::Runner(const ServedAttention& attention, const InputGather& gather,
                                const kernels::Kernels& kernels, float* x)
    : attention_(attention),
      gather_(gather),
      kernels_(kernels),
      history_(attention.spec_.features()[attention.attention_.history[0]].max_length *
               attention.attention_.history_width),
      transposed_(history_.size()),
      scores_(attention.spec_.features()[attention.attention_.history[0]].max_length),
      query_(kTileRows * attention.attention_.query_width),
      projected_(kTileRows * attention.pooled_width()),
      pooled_(kTileRows * attention.pooled_width()),
      x_(x + attention.attention_.input_offset) {}

void ServedAttention::Runner::LoadHistory(const EncodedBatch& batch, size_t row) {
  const AttentionSpec& attention = attention_.attention_;
  const std::vector<uint32_t>& offsets = batch.features[attention.history[0]].offsets;
  const size_t n = offsets[row + 1] - offsets[row], dk = attention.history_width;
  positions_ = static_cast<int>(n);
  size_t column = 0;
  for (const int f : attention.history) {
    gather_.Ids(batch, static_cast<size_t>(f), offsets[row], n, history_.data() + column, dk);
    column += attention_.spec_.features()[f].width;
  }
  for (size_t j = 0; j < n; ++j) {
    for (size_t d = 0; d < dk; ++d) transposed_[d * n + j] = history_[j * dk + d];
  }
}

void ServedAttention::Runner::PrepareContext(const EncodedBatch& batch) {
  if (attention_.SharesHistory(batch)) LoadHistory(batch, 0);
}

void ServedAttention::Runner::Run(const EncodedBatch& batch, size_t begin, int rows, const Runner& context) {
  const AttentionSpec& attention = attention_.attention_;
  const bool shared = attention_.SharesHistory(batch);
  const Runner& history = shared ? context : *this;
  size_t column = 0;
  for (const int f : attention.query) {
    gather_.Ids(batch, static_cast<size_t>(f), begin, static_cast<size_t>(rows), query_.data() + column,
                attention.query_width);
    column += attention_.spec_.features()[f].width;
  }
  const int pooled = attention_.score_.outputs();
  attention_.score_.Run(kernels_, rows, query_.data(), static_cast<int>(attention.query_width), {}, projected_.data(),
                        pooled, nullptr);
  const int dk = static_cast<int>(attention.history_width);
  for (int r = 0; r < rows; ++r) {
    if (!shared) LoadHistory(batch, begin + static_cast<size_t>(r));
    for (size_t head = 0; head < attention.heads; ++head) {
      const size_t at = (static_cast<size_t>(r) * attention.heads + head) * attention.history_width;
      kernels_.attend(history.positions_, dk, history.history_.data(), dk, history.transposed_.data(),
                      history.positions_, projected_.data() + at, scores_.data(), pooled_.data() + at);
    }
  }
  attention_.output_.Run(kernels_, rows, pooled_.data(), pooled, {}, x_,
                         static_cast<int>(attention_.spec_.input_width()), nullptr);
}

}  // namespace hilomoe
