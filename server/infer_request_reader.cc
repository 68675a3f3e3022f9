#include "server/infer_request_reader.h"

#include <algorithm>
#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/stubs/common.h"
#include "google/protobuf/wire_format_lite.h"
#include "inference/grpc_inference_service.pb.h"
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

absl::Status CheckParameter(std::string_view key) {
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
      std::string_view key;
      if (!reader.Read(&entry) || !ReadParameter(entry, &key)) return Malformed();
      HILOMOE_RETURN_IF_ERROR(CheckParameter(key));
      if (key == "classification") {
        return absl::InvalidArgumentError("outputs: classification is not offered; sort the scores");
      }
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

}  // namespace

bool HasLengthsSuffix(std::string_view name) { return absl::EndsWith(Text(name), Text(kSuffix)); }

std::string_view WithoutLengthsSuffix(std::string_view name) { return name.substr(0, name.size() - kSuffix.size()); }

std::string_view InferRequestReader::Flatten(google::protobuf::io::ZeroCopyInputStream* bytes) {
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

absl::Status InferRequestReader::Read(google::protobuf::io::ZeroCopyInputStream* bytes) {
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

absl::Status InferRequestReader::AddInput(std::string_view bytes) {
  if (inputs_.size() == kMaxTensors) {
    return absl::InvalidArgumentError(absl::StrCat("more than ", kMaxTensors, " inputs"));
  }
  InferTensor& tensor = inputs_.emplace_back().tensor;
  FieldReader reader(bytes);
  while (const uint32_t tag = reader.Next()) {
    std::string_view value, key;
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
        if (!reader.Read(&value) || !ReadParameter(value, &key)) return Malformed();
        HILOMOE_RETURN_IF_ERROR(CheckParameter(key));
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

absl::Status InferRequestReader::AttachRaw() {
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

absl::Status InferRequestReader::AttachLengths() {
  const auto is_lengths = [](const InferInput& input) { return HasLengthsSuffix(input.tensor.name); };
  if (std::none_of(inputs_.begin(), inputs_.end(), is_lengths)) return absl::OkStatus();
  by_name_.resize(inputs_.size());
  for (size_t i = 0; i < by_name_.size(); ++i) by_name_[i] = static_cast<uint32_t>(i);
  const auto name = [this](uint32_t i) { return inputs_[i].tensor.name; };
  std::sort(by_name_.begin(), by_name_.end(), [&](uint32_t a, uint32_t b) { return name(a) < name(b); });
  for (size_t i = 0; i < inputs_.size(); ++i) {
    InferInput& lengths = inputs_[i];
    if (!is_lengths(lengths)) continue;
    const std::string_view base = WithoutLengthsSuffix(lengths.tensor.name);
    const auto found = std::lower_bound(by_name_.begin(), by_name_.end(), base,
                                        [&](uint32_t a, std::string_view b) { return name(a) < b; });
    if (found == by_name_.end() || name(*found) != base) continue;
    InferInput& values = inputs_[*found];
    if (values.lengths >= 0) return BadTensor(lengths.tensor, "stands twice in the request");
    values.lengths = static_cast<int>(i);
    lengths.is_lengths = true;
  }
  return absl::OkStatus();
}

size_t InferRequestReader::kept_bytes() const {
  return flat_.capacity() + inputs_.capacity() * sizeof(InferInput) + raw_.capacity() * sizeof(std::string_view) +
         by_name_.capacity() * sizeof(uint32_t);
}

}  // namespace hilomoe
