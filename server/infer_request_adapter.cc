#include "server/infer_request_adapter.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "model/status_macros.h"

namespace hilomoe {
namespace {

absl::string_view Text(std::string_view text) { return {text.data(), text.size()}; }

uint64_t FirstDimension(const InferTensor& tensor) {
  return tensor.rank == 0 || tensor.dims[0] < 0 ? 0 : static_cast<uint64_t>(tensor.dims[0]);
}

}  // namespace

absl::Status ParseModelVersion(std::string_view text, VersionOrLabel* version) {
  *version = {};
  if (text.empty()) return absl::OkStatus();
  if (!std::all_of(text.begin(), text.end(),
                   [](char c) { return absl::ascii_isdigit(static_cast<unsigned char>(c)); })) {
    version->label = text;
    return absl::OkStatus();
  }
  if (absl::SimpleAtoi(Text(text), &version->version) && version->version > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("model_version: '", Text(text.substr(0, 32)), "' is not a version: these are 1 and above"));
}

uint64_t InferRequestAdapter::GreatestRows() const {
  uint64_t rows = 0;
  for (const InferInput& input : request_.inputs()) {
    if (input.is_lengths) continue;
    rows = std::max(rows, FirstDimension(input.lengths >= 0 ? request_.inputs()[input.lengths].tensor : input.tensor));
  }
  return rows;
}

absl::Status InferRequestAdapter::ReadHead(google::protobuf::io::ZeroCopyInputStream* bytes, RequestHead* head) {
  absl::Status status = request_.Read(bytes);
  VersionOrLabel version;
  if (status.ok()) status = ParseModelVersion(request_.version(), &version);
  if (status.ok()) {
    head->model = request_.model();
    head->version = version.version;
    head->label = version.label;
    head->num_candidates =
        static_cast<uint32_t>(std::min<uint64_t>(GreatestRows(), std::numeric_limits<uint32_t>::max()));
  }
  if (kept_bytes() > kMaxKeptBytes) Recycle();
  return status;
}

absl::Status InferRequestAdapter::CountRows(const ModelSpec& spec, InferInput* input) const {
  size_t values = 0, lengths = 0;
  HILOMOE_RETURN_IF_ERROR(CountValues(input->tensor, &values));
  const InferTensor& tensor = input->tensor;
  const bool is_vector = tensor.rank == 1 || tensor.dims[1] == 1;
  if (input->lengths >= 0) {
    const InferTensor& rows = request_.inputs()[input->lengths].tensor;
    HILOMOE_RETURN_IF_ERROR(CountValues(rows, &lengths));
    if (rows.rank == 2 && rows.dims[1] != 1) return BadTensor(rows, "lengths take the shape [n] or [n, 1]");
    if (!is_vector) return BadTensor(tensor, "values with lengths beside them take the shape [n] or [n, 1]");
    input->rows = lengths;
    return absl::OkStatus();
  }
  input->rows = FirstDimension(tensor);
  if (is_vector) return absl::OkStatus();
  if (!spec.features()[input->feature].is_pooled()) {
    return BadTensor(tensor,
                     absl::StrCat("shape [", tensor.dims[0], ", ", tensor.dims[1], "]; it takes [n] or [n, 1]"));
  }
  // Otherwise a few bytes could name any number of rows.
  if (values == 0 && input->rows > 1) {
    return BadTensor(tensor, absl::StrCat(input->rows, " rows of no values; send '", kLengthsSuffix, "' instead"));
  }
  return absl::OkStatus();
}

absl::Status InferRequestAdapter::CountCandidates(const ModelSpec& spec, size_t* candidates) const {
  const InferInput* first = nullptr;
  for (const InferInput& input : request_.inputs()) {
    if (input.feature < 0 || spec.features()[input.feature].is_context()) continue;
    if (first == nullptr) first = &input;
    if (input.rows != first->rows) {
      return BadTensor(input.tensor, absl::StrCat(input.rows, " rows, but '", spec.features()[first->feature].name,
                                                  "' has ", first->rows, "; all candidate features need as many"));
    }
  }
  *candidates = first != nullptr ? first->rows : GreatestRows();
  if (*candidates > std::numeric_limits<uint32_t>::max()) {
    return absl::InvalidArgumentError(absl::StrCat(*candidates, " candidates are more than anything can score"));
  }
  for (const InferInput& input : request_.inputs()) {
    if (input.feature < 0 || input.rows == *candidates || input.rows == 1) continue;
    return BadTensor(input.tensor, absl::StrCat(input.rows, " rows; a context feature has one, or one for each of the ",
                                                *candidates, " candidates"));
  }
  return absl::OkStatus();
}

absl::Status InferRequestAdapter::AppendFeature(const ModelSpec& spec, const InferInput& input, size_t candidates) {
  const FeatureSpec& feature = spec.features()[input.feature];
  places_.push_back({.feature = input.feature,
                     .is_context = feature.is_context() && (input.rows != candidates || candidates == 1),
                     .ids = values_.ids.size(),
                     .numbers = values_.numbers.size(),
                     .strings = values_.strings.size(),
                     .string_bytes = values_.string_bytes.size(),
                     .row_lengths = values_.row_lengths.size()});
  size_t count = 0;
  HILOMOE_RETURN_IF_ERROR(CountValues(input.tensor, &count));
  const ValueKind kind = feature.is_numeric()                     ? ValueKind::kNumbers
                         : feature.id_type == v1::Feature::STRING ? ValueKind::kStrings
                                                                  : ValueKind::kIds;
  HILOMOE_RETURN_IF_ERROR(AppendValues(input.tensor, kind, count, &values_));
  if (input.lengths >= 0) {
    return AppendValues(request_.inputs()[input.lengths].tensor, ValueKind::kLengths, input.rows, &values_);
  }
  // By now there are as many values, so that this is no more than they take.
  if (count != input.rows) {
    values_.row_lengths.resize(values_.row_lengths.size() + input.rows, static_cast<uint32_t>(count / input.rows));
  }
  return absl::OkStatus();
}

void InferRequestAdapter::MakeView(const ModelSpec& spec, size_t candidates) {
  context_.clear();
  candidates_.clear();
  for (size_t i = 0; i < places_.size(); ++i) {
    const Place& begin = places_[i];
    const bool last = i + 1 == places_.size();
    const auto part = [&](const auto& all, size_t Place::*member) {
      const size_t end = last ? all.size() : places_[i + 1].*member;
      return absl::MakeConstSpan(all).subspan(begin.*member, end - begin.*member);
    };
    ColumnView& column = (begin.is_context ? context_ : candidates_).emplace_back();
    column.feature_id = spec.features()[begin.feature].id;
    column.ids = part(values_.ids, &Place::ids);
    column.numbers = part(values_.numbers, &Place::numbers);
    const auto strings = part(values_.strings, &Place::strings);
    column.strings = {strings.data(), strings.size()};
    column.string_bytes = part(values_.string_bytes, &Place::string_bytes);
    column.row_lengths = part(values_.row_lengths, &Place::row_lengths);
  }
  // Columns without an id or a name: counted as unknown, and passed over.
  candidates_.resize(candidates_.size() + unknown_);
  view_ = {candidates, context_, candidates_};
}

absl::Status InferRequestAdapter::Parse(google::protobuf::io::ZeroCopyInputStream* bytes, const ModelSpec& spec) {
  view_ = {};
  values_.Clear();
  places_.clear();
  unknown_ = 0;
  HILOMOE_RETURN_IF_ERROR(request_.Read(bytes));
  id_ = request_.id();
  answer_raw_ = request_.is_raw();
  for (InferInput& input : request_.inputs()) {
    if (input.is_lengths) continue;
    input.feature = spec.FindFeature(input.tensor.name);
    if (input.feature >= 0) {
      HILOMOE_RETURN_IF_ERROR(CountRows(spec, &input));
      continue;
    }
    ++unknown_;
    if (!HasLengthsSuffix(input.tensor.name)) continue;
    if (spec.FindFeature(WithoutLengthsSuffix(input.tensor.name)) >= 0) {
      return BadTensor(input.tensor, "lengths without a tensor that has the values");
    }
  }
  size_t candidates = 0;
  HILOMOE_RETURN_IF_ERROR(CountCandidates(spec, &candidates));
  for (const InferInput& input : request_.inputs()) {
    if (input.feature >= 0) HILOMOE_RETURN_IF_ERROR(AppendFeature(spec, input, candidates));
  }
  MakeView(spec, candidates);
  return absl::OkStatus();
}

absl::Span<float> InferRequestAdapter::StartResponse() {
  scores_.resize(view_.num_candidates);
  return absl::MakeSpan(scores_);
}

const inference::ModelInferResponse& InferRequestAdapter::FinishResponse(const ServedModel& model, const ScoreTimes&) {
  // Clear would delete it, and its memory with it.
  if (response_.outputs_size() > 0 && response_.outputs(0).has_contents()) {
    contents_.reset(response_.mutable_outputs(0)->release_contents());
  }
  response_.Clear();
  response_.set_model_name(model.name());
  absl::StrAppend(response_.mutable_model_version(), model.version());
  response_.set_id(id_);
  inference::ModelInferResponse::InferOutputTensor* output = response_.add_outputs();
  output->set_name(kScoresOutput);
  output->set_datatype("FP32");
  output->add_shape(static_cast<int64_t>(scores_.size()));
  if (answer_raw_) {
    response_.add_raw_output_contents()->assign(reinterpret_cast<const char*>(scores_.data()),
                                                scores_.size() * sizeof(float));
  } else {
    if (contents_ == nullptr) contents_ = std::make_unique<inference::InferTensorContents>();
    contents_->Clear();
    contents_->mutable_fp32_contents()->Add(scores_.begin(), scores_.end());
    output->set_allocated_contents(contents_.release());
  }
  return response_;
}

size_t InferRequestAdapter::kept_bytes() const {
  return request_.kept_bytes() + values_.kept_bytes() + places_.capacity() * sizeof(Place) +
         (context_.capacity() + candidates_.capacity()) * sizeof(ColumnView);
}

void InferRequestAdapter::Recycle() {
  view_ = {};
  if (kept_bytes() <= kMaxKeptBytes) return;
  // Assigned to, a string would keep its memory.
  InferRequestAdapter empty;
  std::swap(*this, empty);
}

}  // namespace hilomoe
