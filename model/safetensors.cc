#include "model/safetensors.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/file_io.h"
#include "model/status_macros.h"
#include "nlohmann/json.hpp"

namespace hilomoe {
namespace {

using Json = nlohmann::ordered_json;

// 0 for a dtype that is not read here.
size_t ElementBytes(const std::string& dtype) {
  if (dtype == "F32") return 4;
  if (dtype == "F64" || dtype == "I64" || dtype == "U64") return 8;
  return dtype == "U8" ? 1 : 0;
}

// The library turns -1 and 1.5 into sizes without a word.
bool IsSizes(const Json& json) {
  return json.is_array() && std::all_of(json.begin(), json.end(), [](const Json& e) { return e.is_number_unsigned(); });
}

// Whether `extents` elements of `element_bytes` each are `bytes` bytes, without overflow.
bool HasBytes(size_t element_bytes, const std::vector<size_t>& extents, size_t bytes) {
  if (std::find(extents.begin(), extents.end(), 0) != extents.end()) return bytes == 0;
  size_t product = element_bytes;
  for (const size_t extent : extents) {
    if (product > bytes / extent) return false;
    product *= extent;
  }
  return product == bytes;
}

}  // namespace

absl::Status WriteSafetensors(const std::string& path, const std::vector<SafetensorsEntry>& entries) {
  Json header = Json::object();
  size_t offset = 0;
  for (const SafetensorsEntry& entry : entries) {
    header[entry.name] = {
        {"dtype", entry.dtype}, {"shape", entry.shape}, {"data_offsets", {offset, offset + entry.bytes.size()}}};
    offset += entry.bytes.size();
  }
  // A feature's name may hold any bytes; they must not stop the file from being written.
  std::string text = header.dump(-1, ' ', false, Json::error_handler_t::replace);
  text.append((8 - text.size() % 8) % 8, ' ');
  const uint64_t length = text.size();
  HILOMOE_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  HILOMOE_RETURN_IF_ERROR(file.Append({reinterpret_cast<const char*>(&length), sizeof(length)}));
  HILOMOE_RETURN_IF_ERROR(file.Append(text));
  for (const SafetensorsEntry& entry : entries) HILOMOE_RETURN_IF_ERROR(file.Append(entry.bytes));
  return file.Commit();
}

absl::StatusOr<Safetensors> Safetensors::Read(const std::string& path) {
  HILOMOE_ASSIGN_OR_RETURN(FileBytes bytes, FileBytes::Read(path));
  Safetensors file(path, std::move(bytes));
  if (const absl::Status status = file.Parse(); !status.ok()) {
    return absl::DataLossError(absl::StrCat("'", path, "' is no sound safetensors file: ", status.message()));
  }
  return file;
}

absl::Status Safetensors::Parse() {
  uint64_t length = 0;
  if (bytes_.size() < sizeof(length)) return absl::DataLossError("too short");
  std::memcpy(&length, bytes_.data(), sizeof(length));
  if (length > bytes_.size() - sizeof(length)) return absl::DataLossError("truncated within the header");
  const char* text = reinterpret_cast<const char*>(bytes_.data()) + sizeof(length);
  const size_t data = sizeof(length) + length;
  const Json header = Json::parse(text, text + length, nullptr, false);
  if (!header.is_object()) return absl::DataLossError("the header is not a JSON object");
  const size_t available = bytes_.size() - data;
  try {
    for (const auto& [name, entry] : header.items()) {
      if (name == "__metadata__") continue;
      if (!IsSizes(entry.at("shape")) || !IsSizes(entry.at("data_offsets")) || entry.at("data_offsets").size() != 2) {
        return absl::DataLossError(absl::StrCat("tensor '", name, "' has no sound shape and data_offsets"));
      }
      Tensor tensor{entry.at("dtype").get<std::string>(), entry.at("shape").get<std::vector<size_t>>(),
                    entry.at("data_offsets").at(0).get<size_t>(), entry.at("data_offsets").at(1).get<size_t>()};
      if (tensor.begin > tensor.end || tensor.end > available) {
        return absl::DataLossError(absl::StrCat("tensor '", name, "' ends beyond the file"));
      }
      const size_t element_bytes = ElementBytes(tensor.dtype);
      if (element_bytes > 0 && !HasBytes(element_bytes, tensor.shape, tensor.end - tensor.begin)) {
        return absl::DataLossError(absl::StrCat("tensor '", name, "' has not the bytes of its shape"));
      }
      tensor.begin += data;
      tensor.end += data;
      tensors_.emplace(name, std::move(tensor));
    }
  } catch (const Json::exception& error) {
    return absl::DataLossError(error.what());
  }
  // The format allows neither holes nor overlaps, so that every byte belongs to one tensor.
  std::vector<std::pair<size_t, size_t>> places;
  for (const auto& [name, tensor] : tensors_) places.emplace_back(tensor.begin, tensor.end);
  std::sort(places.begin(), places.end());
  size_t end = data;
  for (const auto& [from, to] : places) {
    if (from != end) return absl::DataLossError("tensors overlap or leave a hole");
    end = to;
  }
  if (end != bytes_.size()) return absl::DataLossError("there are bytes behind the last tensor");
  return absl::OkStatus();
}

template <typename T>
absl::StatusOr<std::vector<T>> Safetensors::Values(const std::string& name, const std::string& dtype,
                                                   const std::vector<size_t>& shape) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end())
    return absl::NotFoundError(absl::StrCat("'", path_, "': tensor '", name, "' is missing"));
  const Tensor& tensor = found->second;
  if (tensor.dtype != dtype || (!shape.empty() && tensor.shape != shape)) {
    return absl::InvalidArgumentError(absl::StrCat("'", path_, "': tensor '", name, "' is ", tensor.dtype, " [",
                                                   absl::StrJoin(tensor.shape, ", "), "], the config asks for ", dtype,
                                                   " [", absl::StrJoin(shape, ", "), "]"));
  }
  std::vector<T> values((tensor.end - tensor.begin) / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), bytes_.data() + tensor.begin, values.size() * sizeof(T));
  return values;
}

absl::StatusOr<std::vector<float>> Safetensors::Floats(const std::string& name,
                                                       const std::vector<size_t>& shape) const {
  return Values<float>(name, "F32", shape);
}
absl::StatusOr<std::vector<int64_t>> Safetensors::Int64s(const std::string& name) const {
  return Values<int64_t>(name, "I64", {});
}
absl::StatusOr<std::vector<double>> Safetensors::Doubles(const std::string& name) const {
  return Values<double>(name, "F64", {});
}
absl::StatusOr<std::vector<uint8_t>> Safetensors::Bytes(const std::string& name) const {
  return Values<uint8_t>(name, "U8", {});
}

std::vector<size_t> Safetensors::Shape(const std::string& name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? std::vector<size_t>{} : found->second.shape;
}

std::vector<std::string> Safetensors::Names() const {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : tensors_) names.push_back(name);
  return names;
}

}  // namespace hilomoe
