#include "runtime/served_attention.h"

#include <algorithm>

#include "model/status_macros.h"

namespace hilomoe {

absl::StatusOr<std::unique_ptr<ServedAttention>> ServedAttention::Create(
    const ModelSpec& spec, size_t index, const ServingAttentionTensors<const float>& tensors) {
  auto served = std::unique_ptr<ServedAttention>(new ServedAttention(spec, index));
  const AttentionSpec& attention = served->attention_;
  const int pooled = static_cast<int>(served->pooled_width()), dq = static_cast<int>(attention.query_width);
  HILOMOE_ASSIGN_OR_RETURN(served->score_, DenseProduct::Create(tensors.score, pooled, dq, dq, dq, pooled));
  HILOMOE_ASSIGN_OR_RETURN(
      served->output_, DenseProduct::Create(tensors.output, static_cast<int>(attention.output_width), pooled, pooled,
                                            pooled, static_cast<int>(spec.input_width())));
  return served;
}

size_t ServedAttention::scratchpad_bytes() const {
  return std::max(score_->scratchpad_bytes(), output_->scratchpad_bytes());
}

bool ServedAttention::SharesHistory(const EncodedBatch& batch) const {
  return batch.context_rows == 1 && spec_.features()[attention_.history[0]].is_context();
}

ServedAttention::Runner::Runner(const ServedAttention& attention, const InputGather& gather,
                                const kernels::Kernels& kernels, float* x, std::byte* scratchpad)
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
      score_(*attention.score_, query_.data(), projected_.data(), scratchpad),
      output_(*attention.output_, pooled_.data(), x + attention.attention_.input_offset, scratchpad) {}

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

void ServedAttention::Runner::Run(const EncodedBatch& batch, size_t begin, int rows) {
  const AttentionSpec& attention = attention_.attention_;
  const bool shared = attention_.SharesHistory(batch);
  size_t column = 0;
  for (const int f : attention.query) {
    gather_.Ids(batch, static_cast<size_t>(f), begin, static_cast<size_t>(rows), query_.data() + column,
                attention.query_width);
    column += attention_.spec_.features()[f].width;
  }
  score_.Run(rows);
  const int dk = static_cast<int>(attention.history_width);
  for (int r = 0; r < rows; ++r) {
    if (!shared) LoadHistory(batch, begin + static_cast<size_t>(r));
    for (size_t head = 0; head < attention.heads; ++head) {
      const size_t at = (static_cast<size_t>(r) * attention.heads + head) * attention.history_width;
      kernels_.attend(positions_, dk, history_.data(), dk, transposed_.data(), positions_, projected_.data() + at,
                      scores_.data(), pooled_.data() + at);
    }
  }
  output_.Run(rows);
}

}  // namespace hilomoe
