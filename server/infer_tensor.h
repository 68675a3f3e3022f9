// One tensor of a v2 ModelInferRequest, and its contents as values of a feature.
#ifndef HILOMOE_SERVER_INFER_TENSOR_H_
#define HILOMOE_SERVER_INFER_TENSOR_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace hilomoe {

// The protocol's datatypes.
struct Datatype {
  enum Kind { kBool, kInteger, kUnsigned, kFloat, kHalf, kBfloat16, kBytes };
  std::string_view name;
  Kind kind;
  size_t bytes;  // of a raw value; 0: BYTES
  int field;     // of InferTensorContents; 0: raw only
  std::string_view field_name;
};
// Null for a name that is none.
const Datatype* FindDatatype(std::string_view name);

// As it lies in the request's bytes; views of them.
struct InferTensor {
  std::string_view name;
  std::string_view datatype;
  int rank = 0;
  int64_t dims[2] = {0, 0};  // the first two of the shape
  bool has_contents = false;
  std::string_view contents;  // an InferTensorContents
  std::string_view raw;       // when the request has raw contents
  bool is_raw = false;
};

// INVALID_ARGUMENT "tensor 'NAME': PROBLEM".
absl::Status BadTensor(const InferTensor& tensor, std::string_view problem);

// Values of all tensors of a request, each appended after the ones before it. Every value takes at most eight bytes for
// each byte of the request.
struct InferValues {
  std::vector<int64_t> ids;
  std::vector<float> numbers;
  std::string strings;
  std::vector<uint32_t> string_bytes;
  std::vector<uint32_t> row_lengths;

  void Clear();
  size_t kept_bytes() const;
};

// What tensors may be read as.
enum class ValueKind {
  kIds,      // integers, widened to int64; UINT64 by its bits
  kNumbers,  // any number or BOOL, rounded to float32
  kStrings,  // BYTES
  kLengths   // integers that fit uint32
};

// Appends exactly `count` values. INVALID_ARGUMENT names the tensor: a datatype that is unknown or does not fit the
// kind, contents that are not as many values or stand in the wrong field, bytes that are no message. After an error
// `values` may hold some of the values.
absl::Status AppendValues(const InferTensor& tensor, ValueKind kind, size_t count, InferValues* values);

// The number of values by the shape: dims are not negative, rank is 1 or 2, their product does not overflow.
// INVALID_ARGUMENT names the tensor.
absl::Status CountValues(const InferTensor& tensor, size_t* count);

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_INFER_TENSOR_H_
