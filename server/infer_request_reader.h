// The bytes of a ModelInferRequest of the Open Inference Protocol v2 -> its tensors, whatever the model.
#ifndef HILOMOE_SERVER_INFER_REQUEST_READER_H_
#define HILOMOE_SERVER_INFER_REQUEST_READER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "google/protobuf/io/zero_copy_stream.h"
#include "server/infer_tensor.h"

namespace hilomoe {

inline constexpr char kLengthsSuffix[] = ".lengths";
inline constexpr char kScoresOutput[] = "scores";
inline constexpr size_t kMaxTensors = 8192;
inline constexpr size_t kMaxTensorNameBytes = 256;

bool HasLengthsSuffix(std::string_view name);
// Of a name that has it.
std::string_view WithoutLengthsSuffix(std::string_view name);

struct InferInput {
  InferTensor tensor;
  int lengths = -1;  // index of the input that has them; -1: none
  bool is_lengths = false;
  // For those who know the model: index into its features, -1 unknown; and rows by the shape.
  int feature = -1;
  size_t rows = 0;
};

// Reads requests without message objects. Everything that is read is a view of the bytes, and lasts as long as they do
// and until the next Read.
class InferRequestReader {
 public:
  // INVALID_ARGUMENT for bytes that are no ModelInferRequest, names that are overlong or not UTF-8, more than
  // kMaxTensors tensors, outputs other than `scores`, tensors in shared memory, raw contents that are not as many as
  // inputs or stand beside typed ones, and a tensor's contents that stand twice, which a protobuf parser would merge.
  absl::Status Read(google::protobuf::io::ZeroCopyInputStream* bytes);

  std::string_view model() const { return model_; }
  std::string_view version() const { return version_; }
  std::string_view id() const { return id_; }
  bool is_raw() const { return !raw_.empty(); }
  std::vector<InferInput>& inputs() { return inputs_; }
  const std::vector<InferInput>& inputs() const { return inputs_; }

  size_t kept_bytes() const;

 private:
  std::string_view Flatten(google::protobuf::io::ZeroCopyInputStream* bytes);
  absl::Status AddInput(std::string_view bytes);
  absl::Status AttachRaw();
  absl::Status AttachLengths();

  std::string flat_;  // the bytes, when they come in pieces
  std::string_view model_, version_, id_;
  std::vector<InferInput> inputs_;
  std::vector<std::string_view> raw_;
  std::vector<uint32_t> by_name_;  // inputs, sorted
};

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_INFER_REQUEST_READER_H_
