#include "server/infer_tensor.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/wire_format_lite.h"
#include "model/status_macros.h"

namespace hilomoe {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;

constexpr Datatype kDatatypes[] = {
    {"INT64", Datatype::kInteger, 8, 3, "int64_contents"},
    {"BYTES", Datatype::kBytes, 0, 8, "bytes_contents"},
    {"FP32", Datatype::kFloat, 4, 6, "fp32_contents"},
    {"INT32", Datatype::kInteger, 4, 2, "int_contents"},
    {"UINT64", Datatype::kUnsigned, 8, 5, "uint64_contents"},
    {"UINT32", Datatype::kUnsigned, 4, 4, "uint_contents"},
    {"FP64", Datatype::kFloat, 8, 7, "fp64_contents"},
    {"FP16", Datatype::kHalf, 2, 0, ""},
    {"BF16", Datatype::kBfloat16, 2, 0, ""},
    {"INT16", Datatype::kInteger, 2, 2, "int_contents"},
    {"INT8", Datatype::kInteger, 1, 2, "int_contents"},
    {"UINT16", Datatype::kUnsigned, 2, 4, "uint_contents"},
    {"UINT8", Datatype::kUnsigned, 1, 4, "uint_contents"},
    {"BOOL", Datatype::kBool, 1, 1, "bool_contents"},
};

float HalfToFloat(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000U) << 16;
  const uint32_t exponent = (half >> 10) & 0x1FU, mantissa = half & 0x3FFU;
  if (exponent == 0) {
    const float value = static_cast<float>(mantissa) * 0x1p-24F;
    return sign != 0 ? -value : value;
  }
  // Bias 15 becomes 127; infinities and NaN keep the greatest exponent.
  const uint32_t wide = exponent == 0x1F ? 0xFFU : exponent + 112;
  return std::bit_cast<float>(sign | wide << 23 | mantissa << 13);
}

float FromDouble(double value) {
  // A conversion beyond float's range would be undefined.
  if (std::fabs(value) > static_cast<double>(std::numeric_limits<float>::max())) {
    return std::copysign(std::numeric_limits<float>::infinity(), static_cast<float>(std::signbit(value) ? -1 : 1));
  }
  return static_cast<float>(value);
}

// A value of any datatype but BYTES as its bits, an integer sign-extended, in 64 bits.
float AsNumber(const Datatype& type, uint64_t bits) {
  switch (type.kind) {
    case Datatype::kInteger:
      return static_cast<float>(static_cast<int64_t>(bits));
    case Datatype::kFloat:
      return type.bytes == 8 ? FromDouble(std::bit_cast<double>(bits))
                             : std::bit_cast<float>(static_cast<uint32_t>(bits));
    case Datatype::kHalf:
      return HalfToFloat(static_cast<uint16_t>(bits));
    case Datatype::kBfloat16:
      return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
    default:
      return static_cast<float>(bits);
  }
}

// Where the values of a tensor go.
class Output {
 public:
  Output(const InferTensor& tensor, const Datatype& type, ValueKind kind, InferValues* values)
      : tensor_(tensor), type_(type), kind_(kind), values_(values) {}

  absl::Status Append(uint64_t bits) {
    switch (kind_) {
      case ValueKind::kIds:
        values_->ids.push_back(static_cast<int64_t>(bits));
        return absl::OkStatus();
      case ValueKind::kNumbers:
        values_->numbers.push_back(AsNumber(type_, bits));
        return absl::OkStatus();
      default:
        if (bits > std::numeric_limits<uint32_t>::max()) {
          return BadTensor(tensor_, absl::StrCat("the length ", static_cast<int64_t>(bits), " is impossible"));
        }
        values_->row_lengths.push_back(static_cast<uint32_t>(bits));
        return absl::OkStatus();
    }
  }
  void AppendString(std::string_view text) {
    values_->strings.append(text);
    values_->string_bytes.push_back(static_cast<uint32_t>(text.size()));
  }

 private:
  const InferTensor& tensor_;
  const Datatype& type_;
  const ValueKind kind_;
  InferValues* const values_;
};

template <typename T>
T Load(const char* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

// T: as wide as the raw value; signed where it is to be sign-extended.
template <typename T>
absl::Status AppendRaw(std::string_view raw, Output* output) {
  for (size_t i = 0; i < raw.size(); i += sizeof(T)) {
    HILOMOE_RETURN_IF_ERROR(output->Append(static_cast<uint64_t>(Load<T>(raw.data() + i))));
  }
  return absl::OkStatus();
}

absl::Status AppendRawNumbers(const InferTensor& tensor, const Datatype& type, ValueKind kind, size_t count,
                              InferValues* values) {
  const std::string_view raw = tensor.raw;
  // count * bytes could overflow.
  if (raw.size() % type.bytes != 0 || raw.size() / type.bytes != count) {
    return BadTensor(tensor, absl::StrCat(raw.size(), " bytes of raw contents for ", count, " values of ", type.bytes));
  }
  if (count == 0) return absl::OkStatus();
  // What needs no conversion is most of what comes.
  if (kind == ValueKind::kIds && type.bytes == 8) {
    const size_t old = values->ids.size();
    values->ids.resize(old + count);
    std::memcpy(values->ids.data() + old, raw.data(), raw.size());
    return absl::OkStatus();
  }
  if (kind == ValueKind::kNumbers && type.kind == Datatype::kFloat && type.bytes == 4) {
    const size_t old = values->numbers.size();
    values->numbers.resize(old + count);
    std::memcpy(values->numbers.data() + old, raw.data(), raw.size());
    return absl::OkStatus();
  }
  Output output(tensor, type, kind, values);
  if (type.kind == Datatype::kBool) {
    for (const char byte : raw) HILOMOE_RETURN_IF_ERROR(output.Append(byte != 0));
    return absl::OkStatus();
  }
  const bool sign_extended = type.kind == Datatype::kInteger;
  switch (type.bytes) {
    case 1:
      return sign_extended ? AppendRaw<int8_t>(raw, &output) : AppendRaw<uint8_t>(raw, &output);
    case 2:
      return sign_extended ? AppendRaw<int16_t>(raw, &output) : AppendRaw<uint16_t>(raw, &output);
    case 4:
      return sign_extended ? AppendRaw<int32_t>(raw, &output) : AppendRaw<uint32_t>(raw, &output);
    default:
      return AppendRaw<uint64_t>(raw, &output);
  }
}

absl::Status AppendRawStrings(const InferTensor& tensor, size_t count, Output* output) {
  std::string_view rest = tensor.raw;
  for (size_t i = 0; i < count; ++i) {
    const uint32_t size = rest.size() < 4 ? 0 : Load<uint32_t>(rest.data());
    if (rest.size() < 4 || rest.size() - 4 < size) {
      return BadTensor(tensor, absl::StrCat("the raw contents end within value ", i, " of ", count));
    }
    output->AppendString(rest.substr(4, size));
    rest.remove_prefix(4 + size_t{size});
  }
  if (rest.empty()) return absl::OkStatus();
  return BadTensor(tensor, absl::StrCat(rest.size(), " bytes of raw contents follow the last of ", count, " values"));
}

bool ReadFixed(CodedInputStream* input, size_t bytes, uint64_t* bits) {
  if (bytes == 8) return input->ReadLittleEndian64(bits);
  uint32_t half = 0;
  const bool good = input->ReadLittleEndian32(&half);
  *bits = half;
  return good;
}

// What a varint of the contents' field means; parsers cut it to the field's width.
uint64_t FromVarint(const Datatype& type, uint64_t varint) {
  if (type.kind == Datatype::kBool) return varint != 0;
  if (type.bytes == 8) return varint;
  if (type.kind == Datatype::kUnsigned) return static_cast<uint32_t>(varint);
  return static_cast<uint64_t>(int64_t{static_cast<int32_t>(static_cast<uint32_t>(varint))});
}

// Reads an InferTensorContents whose values stand in the field of the datatype.
class TypedContents {
 public:
  TypedContents(const InferTensor& tensor, const Datatype& type, size_t count, Output* output)
      : tensor_(tensor), type_(type), count_(count), output_(output) {}

  absl::Status Read() {
    const std::string_view bytes = tensor_.contents;
    CodedInputStream input(reinterpret_cast<const uint8_t*>(bytes.data()), static_cast<int>(bytes.size()));
    while (const uint32_t tag = input.ReadTag()) {
      const int field = WireFormatLite::GetTagFieldNumber(tag);
      if (field == type_.field) {
        HILOMOE_RETURN_IF_ERROR(ReadField(tag, &input));
      } else if (field >= 1 && field <= 8) {
        return BadTensor(tensor_, absl::StrCat("values outside of ", Text(type_.field_name), ", where those of ",
                                               Text(type_.name), " belong"));
      } else if (!WireFormatLite::SkipField(&input, tag)) {
        return Malformed();
      }
    }
    if (!input.ConsumedEntireMessage()) return Malformed();
    return read_ == count_ ? absl::OkStatus() : WrongCount();
  }

 private:
  static absl::string_view Text(std::string_view text) { return {text.data(), text.size()}; }
  absl::Status Malformed() const { return BadTensor(tensor_, "the contents are not an InferTensorContents"); }
  absl::Status WrongCount() const {
    return BadTensor(tensor_, absl::StrCat(read_ > count_ ? "more than " : "", std::min(read_, count_),
                                           " values; the shape says ", count_));
  }

  absl::Status ReadField(uint32_t tag, CodedInputStream* input) {
    const WireFormatLite::WireType wire = WireFormatLite::GetTagWireType(tag);
    if (wire != WireFormatLite::WIRETYPE_LENGTH_DELIMITED) return wire == ValueWire() ? ReadValue(input) : Malformed();
    int size = 0;
    if (!input->ReadVarintSizeAsInt(&size)) return Malformed();
    if (type_.kind == Datatype::kBytes) return ReadString(size, input);
    if (size > input->BytesUntilLimit()) return Malformed();  // a limit beyond the end would not hold
    const CodedInputStream::Limit limit = input->PushLimit(size);
    while (input->BytesUntilLimit() > 0) HILOMOE_RETURN_IF_ERROR(ReadValue(input));
    input->PopLimit(limit);
    return absl::OkStatus();
  }

  WireFormatLite::WireType ValueWire() const {
    if (type_.kind != Datatype::kFloat) return WireFormatLite::WIRETYPE_VARINT;
    return type_.bytes == 8 ? WireFormatLite::WIRETYPE_FIXED64 : WireFormatLite::WIRETYPE_FIXED32;
  }

  absl::Status ReadValue(CodedInputStream* input) {
    if (++read_ > count_) return WrongCount();
    uint64_t bits = 0;
    if (type_.kind == Datatype::kFloat)
      return ReadFixed(input, type_.bytes, &bits) ? output_->Append(bits) : Malformed();
    return input->ReadVarint64(&bits) ? output_->Append(FromVarint(type_, bits)) : Malformed();
  }

  absl::Status ReadString(int size, CodedInputStream* input) {
    if (++read_ > count_) return WrongCount();
    const size_t begin = static_cast<size_t>(input->CurrentPosition());
    if (!input->Skip(size)) return Malformed();
    output_->AppendString(tensor_.contents.substr(begin, static_cast<size_t>(size)));
    return absl::OkStatus();
  }

  const InferTensor& tensor_;
  const Datatype& type_;
  const size_t count_;
  Output* const output_;
  size_t read_ = 0;
};

bool Fits(const Datatype& type, ValueKind kind) {
  const bool integer = type.kind == Datatype::kInteger || type.kind == Datatype::kUnsigned;
  switch (kind) {
    case ValueKind::kStrings:
      return type.kind == Datatype::kBytes;
    case ValueKind::kNumbers:
      return type.kind != Datatype::kBytes;
    default:
      return integer;
  }
}

constexpr const char* kFitting[] = {"INT64 or another integer", "FP32 or another number", "BYTES", "INT32 or INT64"};

}  // namespace

const Datatype* FindDatatype(std::string_view name) {
  for (const Datatype& type : kDatatypes) {
    if (type.name == name) return &type;
  }
  return nullptr;
}

absl::Status BadTensor(const InferTensor& tensor, std::string_view problem) {
  return absl::InvalidArgumentError(
      absl::StrCat("tensor '", absl::Utf8SafeCHexEscape(absl::string_view(tensor.name.data(), tensor.name.size())),
                   "': ", absl::string_view(problem.data(), problem.size())));
}

void InferValues::Clear() {
  ids.clear();
  numbers.clear();
  strings.clear();
  string_bytes.clear();
  row_lengths.clear();
}

size_t InferValues::kept_bytes() const {
  return ids.capacity() * sizeof(int64_t) + numbers.capacity() * sizeof(float) + strings.capacity() +
         (string_bytes.capacity() + row_lengths.capacity()) * sizeof(uint32_t);
}

absl::Status CountValues(const InferTensor& tensor, size_t* count) {
  if (tensor.rank != 1 && tensor.rank != 2) {
    return BadTensor(tensor, absl::StrCat("a shape of ", tensor.rank, " dimensions; it takes [n] or [n, 1]"));
  }
  const int64_t second = tensor.rank == 2 ? tensor.dims[1] : 1;
  int64_t product = 0;
  if (tensor.dims[0] < 0 || second < 0) return BadTensor(tensor, "a dimension of the shape is negative");
  if (__builtin_mul_overflow(tensor.dims[0], second, &product)) return BadTensor(tensor, "the shape is impossible");
  *count = static_cast<size_t>(product);
  return absl::OkStatus();
}

absl::Status AppendValues(const InferTensor& tensor, ValueKind kind, size_t count, InferValues* values) {
  const Datatype* type = FindDatatype(tensor.datatype);
  if (type == nullptr || !Fits(*type, kind)) {
    const absl::string_view name(tensor.datatype.data(), std::min<size_t>(tensor.datatype.size(), 32));
    return BadTensor(
        tensor, absl::StrCat("datatype '", absl::CHexEscape(name), "'; it takes ", kFitting[static_cast<int>(kind)]));
  }
  Output output(tensor, *type, kind, values);
  if (tensor.is_raw) {
    return kind == ValueKind::kStrings ? AppendRawStrings(tensor, count, &output)
                                       : AppendRawNumbers(tensor, *type, kind, count, values);
  }
  if (type->field == 0) {
    return BadTensor(tensor, absl::StrCat("values of ", absl::string_view(type->name.data(), type->name.size()),
                                          " travel in raw_input_contents alone"));
  }
  return TypedContents(tensor, *type, count, &output).Read();
}

}  // namespace hilomoe
