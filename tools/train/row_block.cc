#include "tools/train/row_block.h"

#include <algorithm>

#include "model/status_macros.h"

namespace hilomoe {
namespace {

static_assert(kBlockRows == size_t{1} << kRowPlaceBits);

constexpr size_t Padded(size_t bytes) { return (bytes + 7) / 8 * 8; }

template <typename T>
void Put(absl::Span<const T> values, std::string* out) {
  out->append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
  out->resize(Padded(out->size()), '\0');
}

void PutBytes(const std::vector<float>& zeros_and_ones, std::string* out) {
  const std::vector<uint8_t> bytes(zeros_and_ones.begin(), zeros_and_ones.end());
  Put(absl::MakeConstSpan(bytes), out);
}

// Takes the parts of a block one after another.
class Parts {
 public:
  explicit Parts(absl::Span<const std::byte> bytes) : rest_(bytes) {}

  template <typename T>
  absl::Status Take(size_t n, const T** part) {
    if (n > rest_.size() / sizeof(T) || Padded(n * sizeof(T)) > rest_.size()) {
      return absl::DataLossError("a block is too short for its rows");
    }
    *part = reinterpret_cast<const T*>(rest_.data());
    rest_.remove_prefix(Padded(n * sizeof(T)));
    return absl::OkStatus();
  }
  bool empty() const { return rest_.empty(); }

 private:
  absl::Span<const std::byte> rest_;
};

// Appends values[i] of n rows; row(i) gives the block and the row within it.
template <typename T, typename Values, typename Row>
void GatherValues(size_t n, const Values& values, const Row& row, std::vector<T>* out) {
  const size_t before = out->size();
  out->resize(before + n);
  T* to = out->data() + before;
  for (size_t i = 0; i < n; ++i) {
    const auto [block, r] = row(i);
    to[i] = static_cast<T>(values(*block)[r]);
  }
}

template <typename Row>
void GatherPooled(size_t f, size_t n, const Row& row, EncodedFeature* out) {
  if (out->offsets.empty()) out->offsets.push_back(0);
  const size_t before = out->offsets.size();
  out->offsets.resize(before + n);
  uint32_t end = out->offsets[before - 1];
  for (size_t i = 0; i < n; ++i) {
    const auto [block, r] = row(i);
    const uint32_t* offsets = block->features[f].offsets;
    end += offsets[r + 1] - offsets[r];
    out->offsets[before + i] = end;
  }
  out->rows.resize(end);
  for (size_t i = 0; i < n; ++i) {
    const auto [block, r] = row(i);
    const RowBlock::Feature& from = block->features[f];
    std::copy(from.rows + from.offsets[r], from.rows + from.offsets[r + 1],
              out->rows.begin() + out->offsets[before + i - 1]);
  }
}

template <typename Row>
void Gather(const RowBlock& columns, size_t n, const Row& row, LabelledRows* out) {
  EncodedBatch& encoded = out->encoded;
  encoded.features.resize(columns.features.size());
  for (size_t f = 0; f < columns.features.size(); ++f) {
    const RowBlock::Feature& feature = columns.features[f];
    EncodedFeature& to = encoded.features[f];
    if (feature.offsets != nullptr) {
      GatherPooled(f, n, row, &to);
      continue;
    }
    if (feature.rows != nullptr) {
      GatherValues(
          n, [f](const RowBlock& block) { return block.features[f].rows; }, row, &to.rows);
    }
    if (feature.values != nullptr) {
      GatherValues(
          n, [f](const RowBlock& block) { return block.features[f].values; }, row, &to.values);
    }
    if (feature.missing != nullptr) {
      GatherValues(
          n, [f](const RowBlock& block) { return block.features[f].missing; }, row, &to.missing);
    }
  }
  GatherValues(
      n, [](const RowBlock& block) { return block.labels; }, row, &out->labels);
  if (columns.weights != nullptr) {
    GatherValues(
        n, [](const RowBlock& block) { return block.weights; }, row, &out->weights);
  }
  encoded.context_rows = encoded.candidate_rows = out->labels.size();
}

}  // namespace

void LabelledRows::Clear() {
  for (EncodedFeature& feature : encoded.features) {
    feature.rows.clear();
    feature.offsets.clear();
    feature.values.clear();
    feature.missing.clear();
  }
  encoded.context_rows = encoded.candidate_rows = 0;
  labels.clear();
  weights.clear();
  groups.clear();
}

void AppendRows(const EncodedBatch& batch, EncodedBatch* all) {
  all->features.resize(batch.features.size());
  for (size_t f = 0; f < batch.features.size(); ++f) {
    const EncodedFeature& from = batch.features[f];
    EncodedFeature& to = all->features[f];
    if (!from.offsets.empty()) {
      if (to.offsets.empty()) to.offsets.push_back(0);
      const uint32_t base = to.offsets.back();
      for (size_t i = 1; i < from.offsets.size(); ++i) to.offsets.push_back(base + from.offsets[i]);
    }
    to.rows.insert(to.rows.end(), from.rows.begin(), from.rows.end());
    to.values.insert(to.values.end(), from.values.begin(), from.values.end());
    to.missing.insert(to.missing.end(), from.missing.begin(), from.missing.end());
  }
  all->candidate_rows += batch.candidate_rows;
  all->context_rows = all->candidate_rows;
}

RowColumns RowColumns::Of(const ModelSpec& spec, bool weights, bool groups) {
  RowColumns columns;
  for (const FeatureSpec& feature : spec.features()) {
    columns.features.push_back(feature.is_pooled()         ? Kind::kPooled
                               : !feature.is_number()      ? Kind::kRow
                               : feature.missing_indicator ? Kind::kNumberOrMissing
                                                           : Kind::kNumber);
  }
  columns.weights = weights;
  columns.groups = groups;
  return columns;
}

std::string SerializeRows(const RowColumns& columns, const LabelledRows& rows) {
  std::string out;
  for (size_t f = 0; f < columns.features.size(); ++f) {
    const EncodedFeature& feature = rows.encoded.features[f];
    switch (columns.features[f]) {
      case RowColumns::Kind::kPooled:
        Put(absl::MakeConstSpan(feature.offsets), &out);
        [[fallthrough]];
      case RowColumns::Kind::kRow:
        Put(absl::MakeConstSpan(feature.rows), &out);
        break;
      case RowColumns::Kind::kNumberOrMissing:
      case RowColumns::Kind::kNumber:
        Put(absl::MakeConstSpan(feature.values), &out);
        if (columns.features[f] == RowColumns::Kind::kNumberOrMissing) PutBytes(feature.missing, &out);
        break;
    }
  }
  PutBytes(rows.labels, &out);
  if (columns.weights) Put(absl::MakeConstSpan(rows.weights), &out);
  if (columns.groups) Put(absl::MakeConstSpan(rows.groups), &out);
  return out;
}

absl::StatusOr<RowBlock> RowBlock::Parse(const RowColumns& columns, size_t rows, absl::Span<const std::byte> bytes) {
  if (rows > kBlockRows) return absl::DataLossError("a block has too many rows");
  Parts parts(bytes);
  RowBlock block;
  block.size = rows;
  for (const RowColumns::Kind kind : columns.features) {
    Feature& feature = block.features.emplace_back();
    size_t values = rows;
    switch (kind) {
      case RowColumns::Kind::kPooled:
        HILOMOE_RETURN_IF_ERROR(parts.Take(rows + 1, &feature.offsets));
        if (feature.offsets[0] != 0 || !std::is_sorted(feature.offsets, feature.offsets + rows + 1)) {
          return absl::DataLossError("offsets of a block do not ascend");
        }
        values = feature.offsets[rows];
        [[fallthrough]];
      case RowColumns::Kind::kRow:
        HILOMOE_RETURN_IF_ERROR(parts.Take(values, &feature.rows));
        break;
      case RowColumns::Kind::kNumberOrMissing:
      case RowColumns::Kind::kNumber:
        HILOMOE_RETURN_IF_ERROR(parts.Take(rows, &feature.values));
        if (kind == RowColumns::Kind::kNumberOrMissing) HILOMOE_RETURN_IF_ERROR(parts.Take(rows, &feature.missing));
        break;
    }
  }
  HILOMOE_RETURN_IF_ERROR(parts.Take(rows, &block.labels));
  if (columns.weights) HILOMOE_RETURN_IF_ERROR(parts.Take(rows, &block.weights));
  if (columns.groups) HILOMOE_RETURN_IF_ERROR(parts.Take(rows, &block.groups));
  if (!parts.empty()) return absl::DataLossError("a block is too long for its rows");
  return block;
}

void GatherRows(absl::Span<const RowBlock> blocks, absl::Span<const RowPlace> places, LabelledRows* out) {
  if (places.empty()) return;
  const auto row = [&](size_t i) {
    return std::pair(&blocks[places[i] >> kRowPlaceBits], size_t{places[i] & (kBlockRows - 1)});
  };
  Gather(blocks[0], places.size(), row, out);
}

void CopyRows(const RowBlock& block, size_t begin, size_t end, LabelledRows* out) {
  out->Clear();
  Gather(
      block, end - begin, [&](size_t i) { return std::pair(&block, begin + i); }, out);
  if (block.groups != nullptr) out->groups.assign(block.groups + begin, block.groups + end);
}

}  // namespace hilomoe
