#include "tests/fuzz/mutate_message.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string_view>
#include <vector>

#include "google/protobuf/descriptor.h"
#include "google/protobuf/stubs/logging.h"
#include "google/protobuf/text_format.h"

namespace hilomoe {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// Schemas that nest without end would be filled without end.
constexpr size_t kMaxMessages = 2000;

void Collect(Message* message, std::vector<Message*>* messages, std::vector<std::string>* strings) {
  if (messages->size() >= kMaxMessages) return;
  messages->push_back(message);
  const Reflection& reflection = *message->GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(*message, &fields);
  for (const FieldDescriptor* field : fields) {
    const bool is_message = field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
    const bool is_string = field->cpp_type() == FieldDescriptor::CPPTYPE_STRING;
    if (!field->is_repeated()) {
      if (is_message) Collect(reflection.MutableMessage(message, field), messages, strings);
      if (is_string) strings->push_back(reflection.GetString(*message, field));
      continue;
    }
    for (int i = 0; i < reflection.FieldSize(*message, field); ++i) {
      if (is_message) Collect(reflection.MutableRepeatedMessage(message, field, i), messages, strings);
      if (is_string) strings->push_back(reflection.GetRepeatedString(*message, field, i));
    }
  }
}

template <typename T>
T MutateNumber(T value, MutationRandom* random) {
  using Limits = std::numeric_limits<T>;
  switch (Below(6, random)) {
    case 0: {
      constexpr T kOdd[] = {Limits::min(), Limits::max(), Limits::lowest(), 0, 1, 2};
      return kOdd[Below(std::size(kOdd), random)];
    }
    case 1:
      if (Limits::has_infinity) {
        const T odd[] = {Limits::infinity(), -Limits::infinity(), Limits::quiet_NaN(), Limits::denorm_min()};
        return odd[Below(std::size(odd), random)];
      }
      return static_cast<T>(uint64_t{1} << Below(sizeof(T) * 8, random));
    case 2:
      return static_cast<T>(Below(130, random));
    case 3:  // a neighbour, without the overflow of a signed sum
      if (Limits::is_integer)
        return static_cast<T>(static_cast<uint64_t>(value) + (OneIn(2, random) ? 1 : ~uint64_t{0}));
      return value * static_cast<T>(OneIn(2, random) ? 2 : -0.5);
    default: {
      uint8_t bytes[sizeof(T)];
      std::memcpy(bytes, &value, sizeof(T));
      LLVMFuzzerMutate(bytes, sizeof(T), sizeof(T));
      std::memcpy(&value, bytes, sizeof(T));
      return value;
    }
  }
}

// One field of one message.
class FieldMutation {
 public:
  FieldMutation(Message* message, const FieldDescriptor* field, const std::vector<std::string>& strings,
                MutationRandom* random)
      : message_(message), reflection_(*message->GetReflection()), field_(field), strings_(strings), random_(random) {}

  void Run() {
    if (!field_->is_repeated()) {
      if (reflection_.HasField(*message_, field_) && OneIn(5, random_)) {
        reflection_.ClearField(message_, field_);
      } else {
        Change(-1);
      }
      return;
    }
    const int size = reflection_.FieldSize(*message_, field_);
    if (size == 0) return Add();
    const int at = static_cast<int>(Below(static_cast<size_t>(size), random_));
    switch (Below(8, random_)) {
      case 0:
        return Add();
      case 1:
        Add();
        reflection_.SwapElements(message_, field_, at, size);
        return;
      case 2:
        reflection_.SwapElements(message_, field_, at, size - 1);
        reflection_.RemoveLast(message_, field_);
        return;
      case 3:
        reflection_.SwapElements(message_, field_, at, static_cast<int>(Below(static_cast<size_t>(size), random_)));
        return;
      case 4:
        if (OneIn(8, random_)) return reflection_.ClearField(message_, field_);
        return Change(at);
      default:
        return Change(at);
    }
  }

 private:
  // A copy of another element, or a new one.
  void Add() {
    const int size = reflection_.FieldSize(*message_, field_);
    const int from = size > 0 && OneIn(2, random_) ? static_cast<int>(Below(static_cast<size_t>(size), random_)) : -1;
    switch (field_->cpp_type()) {
      case FieldDescriptor::CPPTYPE_MESSAGE: {
        Message* added = reflection_.AddMessage(message_, field_);
        if (from >= 0) added->CopyFrom(reflection_.GetRepeatedMessage(*message_, field_, from));
        return;
      }
      case FieldDescriptor::CPPTYPE_STRING:
        reflection_.AddString(message_, field_, "");
        break;
      case FieldDescriptor::CPPTYPE_ENUM:
        reflection_.AddEnumValue(message_, field_, field_->default_value_enum()->number());
        break;
      case FieldDescriptor::CPPTYPE_BOOL:
        reflection_.AddBool(message_, field_, false);
        break;
      case FieldDescriptor::CPPTYPE_INT32:
        reflection_.AddInt32(message_, field_, 0);
        break;
      case FieldDescriptor::CPPTYPE_INT64:
        reflection_.AddInt64(message_, field_, 0);
        break;
      case FieldDescriptor::CPPTYPE_UINT32:
        reflection_.AddUInt32(message_, field_, 0);
        break;
      case FieldDescriptor::CPPTYPE_UINT64:
        reflection_.AddUInt64(message_, field_, 0);
        break;
      case FieldDescriptor::CPPTYPE_FLOAT:
        reflection_.AddFloat(message_, field_, 0);
        break;
      case FieldDescriptor::CPPTYPE_DOUBLE:
        reflection_.AddDouble(message_, field_, 0);
        break;
    }
    Change(size);
  }

  // Of the element, or with -1 of the singular field.
  void Change(int at) {
    const Message& m = *message_;
    const bool one = at < 0;
    switch (field_->cpp_type()) {
      case FieldDescriptor::CPPTYPE_MESSAGE:  // its fields have their own turn; here it comes to be
        if (one) reflection_.MutableMessage(message_, field_);
        return;
      case FieldDescriptor::CPPTYPE_STRING: {
        std::string value = one ? reflection_.GetString(m, field_) : reflection_.GetRepeatedString(m, field_, at);
        if (!strings_.empty() && OneIn(3, random_)) {
          value = strings_[Below(strings_.size(), random_)];
        } else {
          MutateBytes(&value, 16);
        }
        if (one) return reflection_.SetString(message_, field_, value);
        return reflection_.SetRepeatedString(message_, field_, at, value);
      }
      case FieldDescriptor::CPPTYPE_ENUM: {
        const auto& type = *field_->enum_type();
        int value = type.value(static_cast<int>(Below(static_cast<size_t>(type.value_count()), random_)))->number();
        // Only proto3 keeps numbers that have no name.
        if (type.file()->syntax() == google::protobuf::FileDescriptor::SYNTAX_PROTO3 && OneIn(8, random_)) value = 99;
        if (one) return reflection_.SetEnumValue(message_, field_, value);
        return reflection_.SetRepeatedEnumValue(message_, field_, at, value);
      }
      case FieldDescriptor::CPPTYPE_BOOL:
        if (one) return reflection_.SetBool(message_, field_, !reflection_.GetBool(m, field_));
        return reflection_.SetRepeatedBool(message_, field_, at, !reflection_.GetRepeatedBool(m, field_, at));
      case FieldDescriptor::CPPTYPE_INT32:
        if (one) return reflection_.SetInt32(message_, field_, MutateNumber(reflection_.GetInt32(m, field_), random_));
        return reflection_.SetRepeatedInt32(message_, field_, at,
                                            MutateNumber(reflection_.GetRepeatedInt32(m, field_, at), random_));
      case FieldDescriptor::CPPTYPE_INT64:
        if (one) return reflection_.SetInt64(message_, field_, MutateNumber(reflection_.GetInt64(m, field_), random_));
        return reflection_.SetRepeatedInt64(message_, field_, at,
                                            MutateNumber(reflection_.GetRepeatedInt64(m, field_, at), random_));
      case FieldDescriptor::CPPTYPE_UINT32:
        if (one)
          return reflection_.SetUInt32(message_, field_, MutateNumber(reflection_.GetUInt32(m, field_), random_));
        return reflection_.SetRepeatedUInt32(message_, field_, at,
                                             MutateNumber(reflection_.GetRepeatedUInt32(m, field_, at), random_));
      case FieldDescriptor::CPPTYPE_UINT64:
        if (one)
          return reflection_.SetUInt64(message_, field_, MutateNumber(reflection_.GetUInt64(m, field_), random_));
        return reflection_.SetRepeatedUInt64(message_, field_, at,
                                             MutateNumber(reflection_.GetRepeatedUInt64(m, field_, at), random_));
      case FieldDescriptor::CPPTYPE_FLOAT:
        if (one) return reflection_.SetFloat(message_, field_, MutateNumber(reflection_.GetFloat(m, field_), random_));
        return reflection_.SetRepeatedFloat(message_, field_, at,
                                            MutateNumber(reflection_.GetRepeatedFloat(m, field_, at), random_));
      case FieldDescriptor::CPPTYPE_DOUBLE:
        if (one)
          return reflection_.SetDouble(message_, field_, MutateNumber(reflection_.GetDouble(m, field_), random_));
        return reflection_.SetRepeatedDouble(message_, field_, at,
                                             MutateNumber(reflection_.GetRepeatedDouble(m, field_, at), random_));
    }
  }

  Message* const message_;
  const Reflection& reflection_;
  const FieldDescriptor* const field_;
  const std::vector<std::string>& strings_;
  MutationRandom* const random_;
};

size_t MutateRaw(uint8_t* data, size_t size, size_t max_size) { return LLVMFuzzerMutate(data, size, max_size); }

}  // namespace

void MutateMessage(Message* message, MutationRandom* random) {
  std::vector<Message*> messages;
  std::vector<std::string> strings;
  Collect(message, &messages, &strings);
  Message* const chosen = messages[Below(messages.size(), random)];
  // Fields that are set matter more than those that are not.
  std::vector<const FieldDescriptor*> fields;
  if (!OneIn(3, random)) chosen->GetReflection()->ListFields(*chosen, &fields);
  if (fields.empty()) {
    for (int i = 0; i < chosen->GetDescriptor()->field_count(); ++i) {
      fields.push_back(chosen->GetDescriptor()->field(i));
    }
  }
  if (fields.empty()) return;
  FieldMutation(chosen, fields[Below(fields.size(), random)], strings, random).Run();
}

void MutateBytes(std::string* bytes, size_t more) {
  const size_t size = bytes->size();
  bytes->resize(size + more);
  bytes->resize(LLVMFuzzerMutate(reinterpret_cast<uint8_t*>(bytes->data()), size, bytes->size()));
}

size_t Replace(const std::string& bytes, uint8_t* data, size_t size, size_t max_size) {
  if (bytes.size() > max_size) return MutateRaw(data, size, max_size);
  std::copy(bytes.begin(), bytes.end(), data);
  return bytes.size();
}

size_t MutateBinary(Message* message, uint8_t* data, size_t size, size_t max_size, MutationRandom* random) {
  const google::protobuf::LogSilencer silencer;
  if (OneIn(8, random)) return MutateRaw(data, size, max_size);
  (void)message->ParsePartialFromArray(data, static_cast<int>(size));  // what there is of it
  do {
    MutateMessage(message, random);
  } while (OneIn(2, random));
  return Replace(message->SerializePartialAsString(), data, size, max_size);
}

size_t MutateText(Message* message, uint8_t* data, size_t size, size_t max_size, MutationRandom* random) {
  const google::protobuf::LogSilencer silencer;
  if (OneIn(8, random)) return MutateRaw(data, size, max_size);
  (void)google::protobuf::TextFormat::ParseFromString(std::string(reinterpret_cast<const char*>(data), size), message);
  do {
    MutateMessage(message, random);
  } while (OneIn(2, random));
  std::string text;
  google::protobuf::TextFormat::PrintToString(*message, &text);
  return Replace(text, data, size, max_size);
}

}  // namespace hilomoe
