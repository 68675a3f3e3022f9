// Bytes of a v2 ModelInferRequest, as the server takes them from the wire, down to scores.
//
// Held besides: what protobuf parses is not called malformed, nor is what it cannot parse taken; the head is the
// message's, and bounds its candidates; an adapter that has read other requests reads the same as a new one, and a new
// one keeps no more memory than it promises.
#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/stubs/logging.h"
#include "server/infer_request_adapter.h"
#include "tests/fuzz/fuzz_model.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/mutate_message.h"

namespace hilomoe {
namespace {

using google::protobuf::io::ArrayInputStream;
using Request = inference::ModelInferRequest;

constexpr uint32_t kMaxCandidates = 300;

class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : stream_(data, static_cast<int>(size), 1 + static_cast<int>(size % 50)) {}
  google::protobuf::io::ZeroCopyInputStream* get() { return &stream_; }

 private:
  ArrayInputStream stream_;
};

// Not so of contents: a field of the wrong wire type is unknown to a parser, and refused by the adapter.
bool IsMalformed(const absl::Status& status) {
  return absl::StrContains(status.message(), "are not an inference.ModelInferRequest");
}

// Whether the bytes may hold parameters, outputs, or contents of features that the model does not know, which are
// passed over whatever they are, or tags of more than five bytes, which parsers may refuse. `request`: what a parser
// made of the bytes before it gave up.
bool MayHavePassedOver(const uint8_t* data, size_t size, const Request& request, const ModelSpec& spec) {
  constexpr int kParameters = 4 << 3 | 2;  // the tag, of the request's and of a tensor's
  if (std::memchr(data, kParameters, size) != nullptr || !request.outputs().empty()) return true;
  const auto continues = [](uint8_t byte, int) { return byte >= 0x80; };
  if (std::search_n(data, data + size, 5, 0, continues) != data + size) {
    return true;
  }
  return std::any_of(request.inputs().begin(), request.inputs().end(), [&](const auto& input) {
    std::string name = input.name();
    if (absl::EndsWith(name, kLengthsSuffix)) name.resize(name.size() - std::strlen(kLengthsSuffix));
    return spec.FindFeature(name) < 0;
  });
}

void Run(const uint8_t* data, size_t size) {
  static FuzzModel& model = *new FuzzModel();
  static InferRequestAdapter& reused = *new InferRequestAdapter();
  const ModelSpec& spec = model.spec();
  InferRequestAdapter adapter;
  RequestHead head;
  const absl::Status read = adapter.ReadHead(Bytes(data, size).get(), &head);
  const absl::Status status = adapter.Parse(Bytes(data, size).get(), spec);
  const absl::Status again = reused.Parse(Bytes(data, size).get(), spec);
  Require(status == again, "one request is read in two ways");
  Require(adapter.kept_bytes() <= 8 * size + (1 << 20), "more memory is kept than promised");

  Request request;
  const bool parsed = request.ParseFromArray(data, static_cast<int>(size));
  for (const absl::Status& result : {read, status}) {
    Require(result.ok() || absl::IsInvalidArgument(result), result.ToString());
    Require(!parsed || !IsMalformed(result), "what protobuf parses is called malformed");
  }
  if (read.ok() && parsed) {
    Require(head.model == request.model_name(), "the head has another model");
    VersionOrLabel version;
    Require(ParseModelVersion(request.model_version(), &version).ok() && head.version == version.version &&
                head.label == version.label,
            "the head has another version");
  }
  if (status.ok()) {
    Require(parsed || MayHavePassedOver(data, size, request, spec), "what protobuf cannot parse is taken");
    const RequestView& view = adapter.view();
    Require(!read.ok() || view.num_candidates <= head.num_candidates, "more candidates than the head bounds");
    if (read.ok() && view.num_candidates > 0 && view.num_candidates <= kMaxCandidates) {
      const absl::Status scored = model.Score(view, adapter.StartResponse());
      Require(scored == model.Score(reused.view(), reused.StartResponse()), "a used adapter gives another view");
    }
  }
  reused.Recycle();
}

// Gives a tensor as many values as its shape says, which is made sane before: few changes leave a request whose counts
// agree.
void FitTensor(Request::InferInputTensor* input, std::string* raw, int64_t rows) {
  if (input->shape().empty()) input->add_shape(rows);
  size_t count = 1;
  for (int64_t& dimension : *input->mutable_shape()) {
    if (dimension < 0 || dimension > 70) dimension = rows;
    count = std::min<size_t>(count * static_cast<size_t>(dimension), 1000);
  }
  const auto fit = [count](auto* values) {
    if (values->empty()) return;
    const auto first = values->Get(0);
    values->Truncate(std::min(static_cast<int>(count), values->size()));
    while (static_cast<size_t>(values->size()) < count) values->Add(first);
  };
  if (const Datatype* type = FindDatatype(input->datatype()); raw != nullptr && type != nullptr) {
    raw->resize(count * std::max<size_t>(type->bytes, 6), 's');
    for (size_t i = 0; type->kind == Datatype::kBytes && i < count; ++i) {
      const uint32_t length = 2;
      std::memcpy(&(*raw)[i * 6], &length, sizeof(length));
    }
  }
  inference::InferTensorContents& contents = *input->mutable_contents();
  fit(contents.mutable_bool_contents());
  fit(contents.mutable_int_contents());
  fit(contents.mutable_int64_contents());
  fit(contents.mutable_uint_contents());
  fit(contents.mutable_uint64_contents());
  fit(contents.mutable_fp32_contents());
  fit(contents.mutable_fp64_contents());
  auto& strings = *contents.mutable_bytes_contents();
  while (!strings.empty() && static_cast<size_t>(strings.size()) > count) strings.RemoveLast();
  while (!strings.empty() && static_cast<size_t>(strings.size()) < count) strings.Add("s1");
}

size_t Mutate(uint8_t* data, size_t size, size_t max_size, MutationRandom* random) {
  Request request;
  const size_t mutated = MutateBinary(&request, data, size, max_size, random);
  request.Clear();
  if (OneIn(2, random) || !request.ParsePartialFromArray(data, static_cast<int>(mutated))) return mutated;
  const int64_t rows = static_cast<int64_t>(Below(5, random));
  if (!request.raw_input_contents().empty()) {
    while (request.raw_input_contents_size() < request.inputs_size()) request.add_raw_input_contents();
  }
  for (int i = 0; i < request.inputs_size(); ++i) {
    const bool raw = i < request.raw_input_contents_size();
    FitTensor(request.mutable_inputs(i), raw ? request.mutable_raw_input_contents(i) : nullptr, rows);
    if (raw) request.mutable_inputs(i)->clear_contents();
  }
  return Replace(request.SerializePartialAsString(), data, mutated, max_size);
}

}  // namespace
}  // namespace hilomoe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const google::protobuf::LogSilencer silencer;
  hilomoe::Run(data, size);
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  const google::protobuf::LogSilencer silencer;
  hilomoe::MutationRandom random(seed);
  return hilomoe::Mutate(data, size, max_size, &random);
}
