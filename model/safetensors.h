// safetensors files (huggingface/safetensors, format 0.3): 8 bytes little-endian header length, a JSON object of
// {"name": {"dtype", "shape", "data_offsets"}}, the bytes. numpy and PyTorch open them.
#ifndef HILOMOE_MODEL_SAFETENSORS_H_
#define HILOMOE_MODEL_SAFETENSORS_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/file_bytes.h"

namespace hilomoe {

// A tensor to be written; the bytes must live until Write returns. dtype: "F32", "F64", "I64", "U64", "U8".
struct SafetensorsEntry {
  std::string name;
  std::string dtype;
  std::vector<size_t> shape;
  std::string_view bytes;
};

template <typename T>
SafetensorsEntry MakeEntry(std::string name, std::string dtype, std::vector<size_t> shape, absl::Span<const T> values) {
  return {std::move(name), std::move(dtype), std::move(shape),
          std::string_view(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T))};
}

// Atomic. Entries stand in the file in the order given.
absl::Status WriteSafetensors(const std::string& path, const std::vector<SafetensorsEntry>& entries);

// An opened file, held in memory. When it is opened, shapes, sizes and offsets are checked, and that the tensors fill
// the file without holes or overlaps.
class Safetensors {
 public:
  static absl::StatusOr<Safetensors> Read(const std::string& path);

  // The tensor's values; dtype and (where not empty) shape must be these. Values are copied: files need not be aligned.
  absl::StatusOr<std::vector<float>> Floats(const std::string& name, const std::vector<size_t>& shape = {}) const;
  absl::StatusOr<std::vector<int64_t>> Int64s(const std::string& name) const;
  absl::StatusOr<std::vector<double>> Doubles(const std::string& name) const;
  absl::StatusOr<std::vector<uint8_t>> Bytes(const std::string& name) const;
  bool Has(const std::string& name) const { return tensors_.count(name) > 0; }
  // Shape of a tensor; empty when it is not there.
  std::vector<size_t> Shape(const std::string& name) const;
  std::vector<std::string> Names() const;
  size_t bytes() const { return bytes_.size(); }  // of the file

 private:
  struct Tensor {
    std::string dtype;
    std::vector<size_t> shape;
    size_t begin, end;  // in the file
  };
  Safetensors(std::string path, FileBytes bytes) : path_(std::move(path)), bytes_(std::move(bytes)) {}
  absl::Status Parse();
  template <typename T>
  absl::StatusOr<std::vector<T>> Values(const std::string& name, const std::string& dtype,
                                        const std::vector<size_t>& shape) const;

  std::string path_;
  FileBytes bytes_;
  std::map<std::string, Tensor> tensors_;
};

}  // namespace hilomoe

#endif  // HILOMOE_MODEL_SAFETENSORS_H_
