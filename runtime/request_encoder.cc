#include "runtime/request_encoder.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "model/status_macros.h"

namespace hilomoe {
namespace {

// A small flat request must not become gigabytes: 2^26 ids are 256 MiB.
constexpr size_t kMaxRepeated = size_t{1} << 26;

absl::Status Bad(const FeatureSpec& feature, std::string_view problem) {
  return absl::InvalidArgumentError(
      absl::StrCat("feature '", feature.name, "': ", absl::string_view(problem.data(), problem.size())));
}

// Repeats a one-row feature until it has `rows` rows.
absl::Status Repeat(const FeatureSpec& feature, size_t rows, EncodedFeature* out) {
  if (!out->offsets.empty()) {
    const size_t length = out->offsets[1];
    if (rows > kMaxRepeated / std::max<size_t>(length, 1)) {
      return Bad(feature, absl::StrCat(length, " ids repeated for ", rows, " candidates; send the context as context"));
    }
    out->rows.resize(length * rows);
    out->offsets.resize(rows + 1);
    for (size_t r = 1; r < rows; ++r) {
      std::copy_n(out->rows.begin(), length, out->rows.begin() + static_cast<ptrdiff_t>(r * length));
      out->offsets[r + 1] = static_cast<uint32_t>((r + 1) * length);
    }
    if (rows == 0) out->offsets.assign(1, 0);
    return absl::OkStatus();
  }
  const auto repeat = [rows](auto& values) {
    if (!values.empty()) values.resize(rows, values[0]);
  };
  repeat(out->rows);
  repeat(out->values);
  repeat(out->missing);
  return absl::OkStatus();
}

void Clear(EncodedFeature* out) {
  out->rows.clear();
  out->offsets.clear();
  out->values.clear();
  out->missing.clear();
}

}  // namespace

RequestEncoder::RequestEncoder(const ModelSpec& spec, absl::Span<const Vocabulary> vocabularies,
                               const FeatureTensors<const float>& numeric)
    : spec_(spec), vocabularies_(vocabularies), numeric_(numeric) {
  for (size_t f = 0; f < spec_.features().size(); ++f) {
    const FeatureSpec& feature = spec_.features()[f];
    by_id_.emplace_back(feature.id, static_cast<int>(f));
    by_name_.emplace_back(feature.name, static_cast<int>(f));
    absent_.push_back(EncodeDefault(static_cast<int>(f)));
    order_.push_back(static_cast<int>(f));
  }
  std::sort(by_id_.begin(), by_id_.end());
  const auto context =
      std::stable_partition(order_.begin(), order_.end(), [&](int f) { return !spec_.features()[f].is_context(); });
  candidate_features_ = static_cast<size_t>(context - order_.begin());
  std::sort(by_name_.begin(), by_name_.end());
}

EncodedFeature RequestEncoder::EncodeDefault(int f) const {
  const FeatureSpec& feature = spec_.features()[f];
  const std::string value = feature.default_value.value_or("");
  std::vector<int64_t> ids;
  std::string strings;
  std::vector<uint32_t> string_bytes;
  std::vector<float> numbers;
  // ModelSpec has checked the texts.
  if (feature.is_numeric()) {
    if (float number = 0; absl::SimpleAtof(value, &number)) numbers.push_back(number);
  } else {
    for (const std::string_view text : DefaultIds(feature.kind, value)) {
      int64_t id = 0;
      if (feature.id_type == v1::Feature::STRING) {
        strings.append(text);
        string_bytes.push_back(static_cast<uint32_t>(text.size()));
      } else if (absl::SimpleAtoi(absl::string_view(text.data(), text.size()), &id)) {
        ids.push_back(id);
      }
    }
  }
  const uint32_t length = static_cast<uint32_t>(ids.size() + string_bytes.size() + numbers.size());
  ColumnView column;
  column.ids = ids;
  column.strings = strings;
  column.string_bytes = string_bytes;
  column.numbers = numbers;
  column.row_lengths = absl::MakeConstSpan(&length, 1);
  EncodedFeature encoded;
  if (feature.is_numeric()) {
    // Fails where the transform overflows; the row then stays empty, which Encode refuses.
    (void)EncodeNumbers(column, f, 1, &encoded, nullptr);
  } else {
    EncodeIds(column, f, 1, &encoded, nullptr);
  }
  return encoded;
}

int RequestEncoder::FindFeature(const ColumnView& column) const {
  if (column.feature_id != 0) {
    const auto found = std::lower_bound(by_id_.begin(), by_id_.end(), std::pair(column.feature_id, 0));
    return found != by_id_.end() && found->first == column.feature_id ? found->second : -1;
  }
  const auto found = std::lower_bound(by_name_.begin(), by_name_.end(), std::pair(column.feature, 0));
  return found != by_name_.end() && found->first == column.feature ? found->second : -1;
}

absl::Status RequestEncoder::CheckType(const ColumnView& column, const FeatureSpec& feature, size_t rows,
                                       size_t* values) const {
  const bool wants_numbers = feature.is_numeric();
  const bool wants_ids = !wants_numbers && feature.id_type == v1::Feature::INT64;
  const bool wants_strings = !wants_numbers && !wants_ids;
  if ((!wants_numbers && !column.numbers.empty()) || (!wants_ids && !column.ids.empty()) ||
      (!wants_strings && (!column.strings.empty() || !column.string_bytes.empty()))) {
    const char* type = wants_numbers ? "numbers" : wants_ids ? "ids" : "strings";
    return Bad(feature, absl::StrCat("takes its values as ", type, ", not as another type"));
  }
  *values = wants_numbers ? column.numbers.size() : wants_ids ? column.ids.size() : column.string_bytes.size();
  if (wants_strings) {
    uint64_t bytes = 0;
    for (const uint32_t length : column.string_bytes) bytes += length;
    if (bytes != column.strings.size()) {
      return Bad(feature, absl::StrCat("string_bytes add up to ", bytes, ", strings has ", column.strings.size()));
    }
  }
  if (column.row_lengths.empty()) {
    if (*values == rows) return absl::OkStatus();
    return Bad(feature, absl::StrCat(*values, " values for ", rows, " rows, and no row_lengths"));
  }
  if (column.row_lengths.size() != rows) {
    return Bad(feature, absl::StrCat(column.row_lengths.size(), " row_lengths for ", rows, " rows"));
  }
  uint64_t sum = 0;
  for (const uint32_t length : column.row_lengths) {
    if (length > 1 && !feature.is_pooled()) {
      return Bad(feature, absl::StrCat("a row with ", length, " values; it takes at most one"));
    }
    sum += length;
  }
  if (sum != *values) return Bad(feature, absl::StrCat("row_lengths add up to ", sum, ", values to ", *values));
  return absl::OkStatus();
}

namespace {

// The values of a column in turn: looked up, or left out.
class ColumnIds {
 public:
  // Appends to `rows` what is found.
  ColumnIds(const ColumnView& column, const Vocabulary& vocabulary, bool int64s, std::vector<uint32_t>* rows)
      : column_(column), vocabulary_(vocabulary), int64s_(int64s), rows_(rows) {}

  // The next n.
  void Find(size_t n) {
    const size_t at = rows_->size();
    rows_->resize(at + n);
    uint32_t* const rows = rows_->data() + at;
    if (int64s_) {
      unknown_ += vocabulary_.Find(column_.ids.subspan(next_, n), rows);
    } else {
      const absl::Span<const uint32_t> bytes = column_.string_bytes.subspan(next_, n);
      unknown_ += vocabulary_.Find(column_.strings.substr(next_byte_), bytes, rows);
      for (size_t i = 0; i < n; ++i) {
        if (bytes[i] > 0) continue;  // the empty string is no id
        unknown_ -= rows[i] == kOutOfVocabularyRow;
        rows[i] = kMissingRow;
        ++missing_;
      }
    }
    Skip(n);
  }
  void Skip(size_t n) {
    if (!int64s_) {
      for (const uint32_t bytes : column_.string_bytes.subspan(next_, n)) next_byte_ += bytes;
    }
    next_ += n;
  }
  // Of those that were looked up.
  size_t unknown() const { return unknown_; }
  size_t missing() const { return missing_; }

 private:
  const ColumnView& column_;
  const Vocabulary& vocabulary_;
  const bool int64s_;
  std::vector<uint32_t>* const rows_;
  size_t next_ = 0, next_byte_ = 0;
  size_t unknown_ = 0, missing_ = 0;
};

// Of each row as many values as the feature takes, a sequence's last ones. What lies between two that are left out is
// looked up at once, mostly the whole column.
void FindKept(const FeatureSpec& feature, absl::Span<const uint32_t> row_lengths, ColumnIds* ids) {
  const bool keeps_last = feature.kind == v1::Feature::SEQUENCE;
  size_t kept = 0;  // before the next one that is left out
  for (const uint32_t length : row_lengths) {
    kept += length;
    if (length <= feature.max_length) continue;
    const size_t left_out = length - feature.max_length;
    ids->Find(kept - (keeps_last ? length : left_out));
    ids->Skip(left_out);
    kept = keeps_last ? feature.max_length : 0;
  }
  ids->Find(kept);
}

}  // namespace

void RequestEncoder::PrefetchFirstIds(absl::Span<const FeatureColumn> columns) const {
  for (size_t f = 0; f < columns.size(); ++f) {
    const FeatureSpec& feature = spec_.features()[f];
    if (columns[f].column == nullptr || feature.is_numeric()) continue;
    const ColumnView& column = *columns[f].column;  // not checked yet
    vocabularies_[feature.table].FetchFirst(column.ids);
    vocabularies_[feature.table].FetchFirst(column.strings, column.string_bytes);
  }
}

void RequestEncoder::EncodeIds(const ColumnView& column, int f, size_t rows, EncodedFeature* out,
                               EncodeCounts* counts) const {
  const FeatureSpec& feature = spec_.features()[f];
  std::vector<uint32_t>& found = out->rows;
  ColumnIds ids(column, vocabularies_[feature.table], feature.id_type == v1::Feature::INT64, &found);
  const bool one_each = column.row_lengths.empty();
  if (one_each) {
    ids.Find(rows);
  } else {
    FindKept(feature, column.row_lengths, &ids);
  }
  size_t values = 0, missing = 0;
  if (feature.is_pooled()) {
    // Values that are no ids leave; rows may be empty.
    out->offsets.push_back(0);
    size_t from = 0;
    for (size_t r = 0; r < rows; ++r) {
      const size_t begin = values;
      const size_t end = from + (one_each ? 1 : std::min<size_t>(column.row_lengths[r], feature.max_length));
      for (; from < end; ++from) {
        if (found[from] != kMissingRow || feature.aligned) found[values++] = found[from];
      }
      missing += values == begin;
      out->offsets.push_back(static_cast<uint32_t>(values));
    }
    found.resize(values);
  } else {
    values = found.size() - ids.missing();
    missing = rows - values;
    if (!one_each) {  // from the end, so that every value moves once
      size_t from = found.size();
      found.resize(rows);
      for (size_t r = rows; r-- > 0;) found[r] = column.row_lengths[r] > 0 ? found[--from] : kMissingRow;
    }
  }
  if (counts == nullptr) return;
  counts->values[f] += values;
  counts->out_of_vocabulary[f] += ids.unknown();
  counts->missing[f] += missing;
}

float RequestEncoder::Transform(int f, float number) const {
  switch (spec_.features()[f].transform) {
    case v1::Numeric::LOG1P:
      return std::copysign(std::log1p(std::fabs(number)), number);
    case v1::Numeric::STANDARDISE:
      return (number - numeric_.standardise[f][0]) * numeric_.standardise[f][1];
    default:
      return number;
  }
}

uint32_t RequestEncoder::Bucket(int f, float number) const {
  // Bucket i holds boundaries[i-1] <= number < boundaries[i].
  const float* begin = numeric_.boundaries[f];
  const float* end = begin + spec_.tables()[spec_.features()[f].table].buckets - 1;
  return kReservedRows + static_cast<uint32_t>(std::upper_bound(begin, end, number) - begin);
}

absl::Status RequestEncoder::EncodeNumbers(const ColumnView& column, int f, size_t rows, EncodedFeature* out,
                                           EncodeCounts* counts) const {
  const FeatureSpec& feature = spec_.features()[f];
  uint64_t missing = 0;
  size_t next = 0;
  for (size_t r = 0; r < rows; ++r) {
    const bool present = column.row_lengths.empty() || column.row_lengths[r] == 1;
    missing += !present;
    const float number = present ? column.numbers[next++] : 0;
    if (!std::isfinite(number)) return Bad(feature, absl::StrCat("row ", r, ": the number is not finite"));
    if (feature.is_bucketed()) {
      out->rows.push_back(present ? Bucket(f, number) : kMissingRow);
    } else {
      const float value = present ? Transform(f, number) : 0;
      if (!std::isfinite(value)) return Bad(feature, absl::StrCat("row ", r, ": ", number, " is out of range"));
      out->values.push_back(value);
      if (feature.missing_indicator) out->missing.push_back(present ? 0 : 1);
    }
  }
  if (counts == nullptr) return absl::OkStatus();
  counts->values[f] += rows - missing;
  counts->missing[f] += missing;
  return absl::OkStatus();
}

absl::Status RequestEncoder::EncodeColumn(const ColumnView& column, int f, size_t rows, EncodedFeature* out,
                                          EncodeCounts* counts) const {
  size_t values = 0;
  HILOMOE_RETURN_IF_ERROR(CheckType(column, spec_.features()[f], rows, &values));
  if (spec_.features()[f].is_numeric()) return EncodeNumbers(column, f, rows, out, counts);
  EncodeIds(column, f, rows, out, counts);
  return absl::OkStatus();
}

absl::Status RequestEncoder::Align(const AttentionSpec& attention, EncodedBatch* batch) const {
  const auto length = [&](int f, size_t r) {
    const std::vector<uint32_t>& offsets = batch->features[f].offsets;
    return offsets[r + 1] - offsets[r];
  };
  const auto longest = [&](size_t r) {
    int found = attention.history[0];
    for (const int f : attention.history) found = length(f, r) > length(found, r) ? f : found;
    return found;
  };
  const bool context = spec_.features()[attention.history[0]].is_context();
  const size_t rows = context ? batch->context_rows : batch->candidate_rows;
  uint32_t positions = 0;  // of all rows
  for (size_t r = 0; r < rows; ++r) {
    const int most = longest(r);
    const uint32_t n = length(most, r);
    positions += n;
    for (const int f : attention.history) {
      const uint32_t own = length(f, r);
      if (own == n || own == 0) continue;
      return Bad(spec_.features()[f], absl::StrCat("row ", r, " has ", own, " values; '", spec_.features()[most].name,
                                                   "' beside it has ", n));
    }
  }
  // Each sequence by itself from its end, so that every value moves once.
  for (const int f : attention.history) {
    EncodedFeature& feature = batch->features[f];
    if (feature.rows.size() == positions) continue;
    feature.rows.resize(positions);
    uint32_t end = positions;
    for (size_t r = rows; r-- > 0;) {
      const uint32_t n = length(longest(r), r), own_end = feature.offsets[r + 1];
      const auto to = feature.rows.begin() + end;
      if (length(f, r) == 0) {
        std::fill(to - n, to, kMissingRow);
      } else {
        std::copy_backward(feature.rows.begin() + feature.offsets[r], feature.rows.begin() + own_end, to);
      }
      feature.offsets[r + 1] = end;
      end -= n;
    }
  }
  return absl::OkStatus();
}

absl::Status RequestEncoder::FillAbsent(int f, size_t rows, EncodedFeature* out) const {
  const EncodedFeature& row = absent_[f];
  if (spec_.features()[f].is_number() && row.values.empty()) {
    return Bad(spec_.features()[f], "is absent, and its default_value is out of the transform's range");
  }
  out->rows = row.rows;
  out->offsets = row.offsets;
  out->values = row.values;
  out->missing = row.missing;
  return Repeat(spec_.features()[f], rows, out);
}

absl::Status RequestEncoder::AssignColumns(const RequestView& request, EncodedBatch* batch, EncodeCounts* counts,
                                           std::vector<FeatureColumn>* columns) const {
  columns->assign(spec_.features().size(), {});
  batch->candidate_rows = request.num_candidates;
  batch->context_rows = 1;
  for (const bool of_context : {false, true}) {
    for (const ColumnView& column : of_context ? request.context : request.candidates) {
      const int f = FindFeature(column);
      if (f < 0) {
        if (counts != nullptr) ++counts->unknown_features;
        continue;
      }
      const FeatureSpec& feature = spec_.features()[f];
      FeatureColumn& found = (*columns)[f];
      if (of_context && !feature.is_context()) return Bad(feature, "belongs to the candidates, not to the context");
      if (found.column != nullptr) return Bad(feature, "stands twice in the request");
      found.column = &column;
      found.of_context = of_context;
      if (!of_context && feature.is_context()) batch->context_rows = request.num_candidates;
    }
  }
  return absl::OkStatus();
}

absl::Status RequestEncoder::EncodeFeature(int f, const FeatureColumn& found, EncodedBatch* batch,
                                           EncodeCounts* counts) const {
  const FeatureSpec& feature = spec_.features()[f];
  EncodedFeature* const out = &batch->features[f];
  Clear(out);
  const size_t rows = feature.is_context() ? batch->context_rows : batch->candidate_rows;
  if (found.column == nullptr) {
    if (rows == 0) return absl::OkStatus();
    if (feature.required) return Bad(feature, "is required and absent");
    if (counts != nullptr) counts->missing[f] += rows;
    return FillAbsent(f, rows, out);
  }
  HILOMOE_RETURN_IF_ERROR(EncodeColumn(*found.column, f, found.of_context ? 1 : rows, out, counts));
  return found.of_context && rows != 1 ? Repeat(feature, rows, out) : absl::OkStatus();
}

absl::Status RequestEncoder::Encode(const RequestView& request, EncodedBatch* batch, EncodeCounts* counts,
                                    std::vector<FeatureColumn>* columns, RunTasks run,
                                    absl::FunctionRef<void()> context_encoded) const {
  const size_t n = spec_.features().size();
  batch->features.resize(n);
  if (counts != nullptr) {
    counts->values.resize(n);
    counts->out_of_vocabulary.resize(n);
    counts->missing.resize(n);
  }
  HILOMOE_RETURN_IF_ERROR(AssignColumns(request, batch, counts, columns));
  PrefetchFirstIds(*columns);
  std::atomic<size_t> failed{n};  // the first feature that cannot be encoded; those behind it need not be
  const auto encode = [&](size_t f) {
    size_t first = failed.load(std::memory_order_relaxed);
    if (f > first) return;
    FeatureColumn& found = (*columns)[f];
    found.status = EncodeFeature(static_cast<int>(f), found, batch, counts);
    if (found.status.ok()) return;
    while (f < first && !failed.compare_exchange_weak(first, f, std::memory_order_relaxed)) {
    }
  };
  const bool one_context = batch->context_rows == 1;
  run(one_context ? candidate_features_ + 1 : n, [&](size_t task) {
    if (!one_context || task < candidate_features_) return encode(static_cast<size_t>(order_[task]));
    for (; task < n; ++task) encode(static_cast<size_t>(order_[task]));
    if (failed.load(std::memory_order_relaxed) == n) context_encoded();
  });
  if (failed < n) return (*columns)[failed].status;
  for (const AttentionSpec& attention : spec_.attention()) {
    if (attention.history.size() > 1) HILOMOE_RETURN_IF_ERROR(Align(attention, batch));
  }
  return absl::OkStatus();
}

absl::Status RequestEncoder::Encode(const RequestView& request, EncodedBatch* batch, EncodeCounts* counts) const {
  std::vector<FeatureColumn> columns;
  return Encode(request, batch, counts, &columns, &RunInOrder, [] {});
}

}  // namespace hilomoe
