#include "server/infer_request_adapter.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/stubs/common.h"
#include "google/protobuf/wire_format_lite.h"
#include "model/status_macros.h"

namespace hilomoe {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;
using Request = inference::ModelInferRequest;
using InputTensor = Request::InferInputTensor;
using OutputTensor = Request::InferRequestedOutputTensor;

constexpr size_t kMaxNameBytes = 256;  // of a model, a version, a label
constexpr size_t kMaxIdBytes = 4096;   // comes back in the answer
constexpr std::string_view kSuffix = kLengthsSuffix;

constexpr uint32_t LengthDelimited(int field) {
  return WireFormatLite::MakeTag(field, WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
}
constexpr uint32_t Varint(int field) { return WireFormatLite::MakeTag(field, WireFormatLite::WIRETYPE_VARINT); }

absl::string_view Text(std::string_view text) { return {text.data(), text.size()}; }

absl::Status Malformed() {
  return absl::InvalidArgumentError("the request's bytes are not an inference.ModelInferRequest");
}

// Reads fields of a message that lies in one piece.
class FieldReader {
 public:
  explicit FieldReader(std::string_view bytes)
      : bytes_(bytes), input_(reinterpret_cast<const uint8_t*>(bytes.data()), static_cast<int>(bytes.size())) {}

  uint32_t Next() { return input_.ReadTag(); }
  bool at_end() { return input_.ConsumedEntireMessage(); }
  bool Skip(uint32_t tag) { return WireFormatLite::SkipField(&input_, tag); }
  bool ReadVarint(uint64_t* value) { return input_.ReadVarint64(value); }
  // The value of a length-delimited field.
  bool Read(std::string_view* value) {
    int size = 0;
    if (!input_.ReadVarintSizeAsInt(&size)) return false;
    const size_t begin = static_cast<size_t>(input_.CurrentPosition());
    if (!input_.Skip(size)) return false;
    *value = bytes_.substr(begin, static_cast<size_t>(size));
    return true;
  }

 private:
  const std::string_view bytes_;
  CodedInputStream input_;
};

absl::Status ReadText(const char* what, size_t max_bytes, FieldReader* reader, std::string_view* text) {
  if (!reader->Read(text)) return Malformed();
  if (text->size() > max_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(what, ": ", text->size(), " bytes are more than ", max_bytes));
  }
  if (!google::protobuf::internal::IsStructurallyValidUTF8(text->data(), static_cast<int>(text->size()))) {
    return absl::InvalidArgumentError(absl::StrCat(what, ": is not UTF-8"));
  }
  return absl::OkStatus();
}

void AddDimension(uint64_t dimension, InferTensor* tensor) {
  if (tensor->rank < 2) tensor->dims[tensor->rank] = static_cast<int64_t>(dimension);
  if (tensor->rank < std::numeric_limits<int>::max()) ++tensor->rank;
}

bool ReadShape(std::string_view packed, InferTensor* tensor) {
  CodedInputStream input(reinterpret_cast<const uint8_t*>(packed.data()), static_cast<int>(packed.size()));
  while (input.CurrentPosition() < static_cast<int>(packed.size())) {
    uint64_t dimension = 0;
    if (!input.ReadVarint64(&dimension)) return false;
    AddDimension(dimension, tensor);
  }
  return true;
}

// Parameters are tolerated, but for those without which the tensor means something else. An entry of the map is a
// message with the key as field 1.
bool ReadParameter(std::string_view entry, std::string_view* key) {
  FieldReader reader(entry);
  *key = {};
  while (const uint32_t tag = reader.Next()) {
    if (!(tag == LengthDelimited(1) ? reader.Read(key) : reader.Skip(tag))) return false;
  }
  return reader.at_end();
}

absl::Status CheckParameter(std::string_view entry) {
  std::string_view key;
  if (!ReadParameter(entry, &key)) return Malformed();
  if (!absl::StartsWith(Text(key), "shared_memory_")) return absl::OkStatus();
  return absl::InvalidArgumentError("tensors in shared memory are not offered; send and take the contents");
}

absl::Status CheckOutput(std::string_view bytes) {
  FieldReader reader(bytes);
  std::string_view name;
  while (const uint32_t tag = reader.Next()) {
    if (tag == LengthDelimited(OutputTensor::kNameFieldNumber)) {
      HILOMOE_RETURN_IF_ERROR(ReadText("outputs.name", kMaxTensorNameBytes, &reader, &name));
    } else if (tag == LengthDelimited(OutputTensor::kParametersFieldNumber)) {
      std::string_view entry;
      if (!reader.Read(&entry)) return Malformed();
      HILOMOE_RETURN_IF_ERROR(CheckParameter(entry));
    } else if (!reader.Skip(tag)) {
      return Malformed();
    }
  }
  if (!reader.at_end()) return Malformed();
  if (name == kScoresOutput) return absl::OkStatus();
  InferTensor output;
  output.name = name;
  return BadTensor(output, absl::StrCat("no such output; there is '", kScoresOutput, "' alone"));
}

bool HasLengthsSuffix(std::string_view name) { return absl::EndsWith(Text(name), Text(kSuffix)); }

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

std::string_view InferRequestAdapter::Flatten(google::protobuf::io::ZeroCopyInputStream* bytes) {
  const void* data = nullptr;
  int size = 0;
  std::string_view first;
  flat_.clear();
  while (bytes->Next(&data, &size)) {
    const std::string_view piece(static_cast<const char*>(data), static_cast<size_t>(size));
    if (first.empty()) {
      first = piece;
      continue;
    }
    if (flat_.empty()) flat_ = first;
    flat_ += piece;
  }
  return flat_.empty() ? first : std::string_view(flat_);
}

absl::Status InferRequestAdapter::Walk(google::protobuf::io::ZeroCopyInputStream* bytes) {
  model_ = version_ = id_ = {};
  inputs_.clear();
  raw_.clear();
  FieldReader reader(Flatten(bytes));
  while (const uint32_t tag = reader.Next()) {
    std::string_view value;
    switch (tag) {
      case LengthDelimited(Request::kModelNameFieldNumber):
        HILOMOE_RETURN_IF_ERROR(ReadText("model_name", kMaxNameBytes, &reader, &model_));
        break;
      case LengthDelimited(Request::kModelVersionFieldNumber):
        HILOMOE_RETURN_IF_ERROR(ReadText("model_version", kMaxNameBytes, &reader, &version_));
        break;
      case LengthDelimited(Request::kIdFieldNumber):
        HILOMOE_RETURN_IF_ERROR(ReadText("id", kMaxIdBytes, &reader, &id_));
        break;
      case LengthDelimited(Request::kInputsFieldNumber):
        if (!reader.Read(&value)) return Malformed();
        HILOMOE_RETURN_IF_ERROR(AddInput(value));
        break;
      case LengthDelimited(Request::kOutputsFieldNumber):
        if (!reader.Read(&value)) return Malformed();
        HILOMOE_RETURN_IF_ERROR(CheckOutput(value));
        break;
      case LengthDelimited(Request::kRawInputContentsFieldNumber):
        if (!reader.Read(&value)) return Malformed();
        if (raw_.size() == kMaxTensors) {
          return absl::InvalidArgumentError(absl::StrCat("more than ", kMaxTensors, " raw_input_contents"));
        }
        raw_.push_back(value);
        break;
      default:
        if (!reader.Skip(tag)) return Malformed();
    }
  }
  if (!reader.at_end()) return Malformed();
  HILOMOE_RETURN_IF_ERROR(AttachRaw());
  return AttachLengths();
}

absl::Status InferRequestAdapter::AddInput(std::string_view bytes) {
  if (inputs_.size() == kMaxTensors) {
    return absl::InvalidArgumentError(absl::StrCat("more than ", kMaxTensors, " inputs"));
  }
  InferTensor& tensor = inputs_.emplace_back().tensor;
  FieldReader reader(bytes);
  while (const uint32_t tag = reader.Next()) {
    std::string_view value;
    uint64_t dimension = 0;
    switch (tag) {
      case LengthDelimited(InputTensor::kNameFieldNumber):
        HILOMOE_RETURN_IF_ERROR(ReadText("inputs.name", kMaxTensorNameBytes, &reader, &tensor.name));
        break;
      case LengthDelimited(InputTensor::kDatatypeFieldNumber):
        HILOMOE_RETURN_IF_ERROR(ReadText("inputs.datatype", kMaxTensorNameBytes, &reader, &tensor.datatype));
        break;
      case LengthDelimited(InputTensor::kShapeFieldNumber):
        if (!reader.Read(&value) || !ReadShape(value, &tensor)) return Malformed();
        break;
      case Varint(InputTensor::kShapeFieldNumber):
        if (!reader.ReadVarint(&dimension)) return Malformed();
        AddDimension(dimension, &tensor);
        break;
      case LengthDelimited(InputTensor::kParametersFieldNumber):
        if (!reader.Read(&value)) return Malformed();
        HILOMOE_RETURN_IF_ERROR(CheckParameter(value));
        break;
      case LengthDelimited(InputTensor::kContentsFieldNumber):
        if (!reader.Read(&value)) return Malformed();
        if (tensor.has_contents) return BadTensor(tensor, "the contents stand twice");
        tensor.has_contents = true;
        tensor.contents = value;
        break;
      default:
        if (!reader.Skip(tag)) return Malformed();
    }
  }
  return reader.at_end() ? absl::OkStatus() : Malformed();
}

absl::Status InferRequestAdapter::AttachRaw() {
  if (raw_.empty()) return absl::OkStatus();
  if (raw_.size() != inputs_.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(raw_.size(), " raw_input_contents for ", inputs_.size(), " inputs; there must be one for each"));
  }
  for (size_t i = 0; i < inputs_.size(); ++i) {
    InferTensor& tensor = inputs_[i].tensor;
    if (!tensor.contents.empty()) return BadTensor(tensor, "typed contents beside raw_input_contents");
    tensor.is_raw = true;
    tensor.raw = raw_[i];
  }
  return absl::OkStatus();
}

absl::Status InferRequestAdapter::AttachLengths() {
  const auto is_lengths = [](const Input& input) { return HasLengthsSuffix(input.tensor.name); };
  if (std::none_of(inputs_.begin(), inputs_.end(), is_lengths)) return absl::OkStatus();
  by_name_.resize(inputs_.size());
  for (size_t i = 0; i < by_name_.size(); ++i) by_name_[i] = static_cast<uint32_t>(i);
  const auto name = [this](uint32_t i) { return inputs_[i].tensor.name; };
  std::sort(by_name_.begin(), by_name_.end(), [&](uint32_t a, uint32_t b) { return name(a) < name(b); });
  for (size_t i = 0; i < inputs_.size(); ++i) {
    Input& lengths = inputs_[i];
    if (!is_lengths(lengths)) continue;
    const std::string_view base = lengths.tensor.name.substr(0, lengths.tensor.name.size() - kSuffix.size());
    const auto found = std::lower_bound(by_name_.begin(), by_name_.end(), base,
                                        [&](uint32_t a, std::string_view b) { return name(a) < b; });
    if (found == by_name_.end() || name(*found) != base) continue;
    Input& values = inputs_[*found];
    if (values.lengths >= 0) return BadTensor(lengths.tensor, "stands twice in the request");
    values.lengths = static_cast<int>(i);
    lengths.is_lengths = true;
  }
  return absl::OkStatus();
}

uint64_t InferRequestAdapter::GreatestRows() const {
  uint64_t rows = 0;
  for (const Input& input : inputs_) {
    if (input.is_lengths) continue;
    rows = std::max(rows, FirstDimension(input.lengths >= 0 ? inputs_[input.lengths].tensor : input.tensor));
  }
  return rows;
}

absl::Status InferRequestAdapter::ReadHead(google::protobuf::io::ZeroCopyInputStream* bytes, RequestHead* head) {
  const absl::Status status = Walk(bytes);
  VersionOrLabel version;
  if (status.ok()) {
    HILOMOE_RETURN_IF_ERROR(ParseModelVersion(version_, &version));
    head->model = model_;
    head->version = version.version;
    head->label = version.label;
    head->num_candidates =
        static_cast<uint32_t>(std::min<uint64_t>(GreatestRows(), std::numeric_limits<uint32_t>::max()));
  }
  if (kept_bytes() > kMaxKeptBytes) Recycle();
  return status;
}

absl::Status InferRequestAdapter::CountRows(const ModelSpec& spec, Input* input) const {
  size_t values = 0, lengths = 0;
  HILOMOE_RETURN_IF_ERROR(CountValues(input->tensor, &values));
  const InferTensor& tensor = input->tensor;
  const bool is_vector = tensor.rank == 1 || tensor.dims[1] == 1;
  if (input->lengths >= 0) {
    const InferTensor& rows = inputs_[input->lengths].tensor;
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
    return BadTensor(tensor, absl::StrCat(input->rows, " rows of no values; send '", Text(kSuffix), "' instead"));
  }
  return absl::OkStatus();
}

absl::Status InferRequestAdapter::CountCandidates(const ModelSpec& spec, size_t* candidates) const {
  const Input* first = nullptr;
  for (const Input& input : inputs_) {
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
  for (const Input& input : inputs_) {
    if (input.feature < 0 || input.rows == *candidates || input.rows == 1) continue;
    return BadTensor(input.tensor, absl::StrCat(input.rows, " rows; a context feature has one, or one for each of the ",
                                                *candidates, " candidates"));
  }
  return absl::OkStatus();
}

absl::Status InferRequestAdapter::AppendFeature(const ModelSpec& spec, const Input& input, size_t candidates) {
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
    return AppendValues(inputs_[input.lengths].tensor, ValueKind::kLengths, input.rows, &values_);
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
  HILOMOE_RETURN_IF_ERROR(Walk(bytes));
  kept_id_ = id_;
  answer_raw_ = !raw_.empty();
  for (Input& input : inputs_) {
    if (input.is_lengths) continue;
    input.feature = spec.FindFeature(input.tensor.name);
    if (input.feature >= 0) {
      HILOMOE_RETURN_IF_ERROR(CountRows(spec, &input));
      continue;
    }
    ++unknown_;
    if (!HasLengthsSuffix(input.tensor.name)) continue;
    if (spec.FindFeature(input.tensor.name.substr(0, input.tensor.name.size() - kSuffix.size())) >= 0) {
      return BadTensor(input.tensor, "lengths without a tensor that has the values");
    }
  }
  size_t candidates = 0;
  HILOMOE_RETURN_IF_ERROR(CountCandidates(spec, &candidates));
  for (const Input& input : inputs_) {
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
  response_.set_id(kept_id_);
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
  return flat_.capacity() + values_.kept_bytes() + inputs_.capacity() * sizeof(Input) +
         raw_.capacity() * sizeof(std::string_view) + by_name_.capacity() * sizeof(uint32_t) +
         places_.capacity() * sizeof(Place) + (context_.capacity() + candidates_.capacity()) * sizeof(ColumnView);
}

void InferRequestAdapter::Recycle() {
  view_ = {};
  if (kept_bytes() <= kMaxKeptBytes) return;
  // Assigned to, a string would keep its memory.
  InferRequestAdapter empty;
  std::swap(*this, empty);
}

}  // namespace hilomoe
