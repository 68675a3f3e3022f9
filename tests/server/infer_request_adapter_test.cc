// What is read of a request before it is parsed, what is refused and what is not, and what a request may cost.
#include "server/infer_request_adapter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "google/protobuf/stubs/logging.h"
#include "infer_request_fixture.h"

namespace hilomoe {
namespace {

using inference::ModelInferRequest;
using ::testing::AllOf;
using ::testing::HasSubstr;

using InferRequestAdapterTest = InferRequestFixture;

TEST_F(InferRequestAdapterTest, EveryErrorNamesItsTensor) {
  using Change = std::function<void(ModelInferRequest*)>;
  const auto set_shape = [](int input, std::vector<int64_t> shape) -> Change {
    return [=](ModelInferRequest* r) {
      r->mutable_inputs(input)->mutable_shape()->Clear();
      r->mutable_inputs(input)->mutable_shape()->Add(shape.begin(), shape.end());
    };
  };
  const auto set_type = [](int input, const char* type) -> Change {
    return [=](ModelInferRequest* r) { r->mutable_inputs(input)->set_datatype(type); };
  };
  // user, history, history.lengths, item, tags, tags.lengths, price
  constexpr int kUser = 0, kLengths = 2, kItem = 3, kTags = 4, kPrice = 6;
  v1::ScoreRequest native = MakeTestRequest(3, 9);
  native.mutable_context()->DeleteSubrange(1, 1);
  const ModelInferRequest typed = MakeInferRequest(native, Config(), false);
  const ModelInferRequest raw = MakeInferRequest(native, Config(), true);
  ASSERT_EQ(typed.inputs(kPrice).name(), "price");
  ASSERT_TRUE(Parse(typed).ok());
  ASSERT_TRUE(Parse(raw).ok());

  struct Case {
    const ModelInferRequest* good;
    const char* expected;
    Change change;
  };
  const Case cases[] = {
      {&typed, "'item': a shape of 0 dimensions", set_shape(kItem, {})},
      {&typed, "'item': a shape of 3 dimensions", set_shape(kItem, {3, 1, 1})},
      {&typed, "'item': a dimension of the shape is negative", set_shape(kItem, {-3})},
      {&typed, "'item': a dimension of the shape is negative", set_shape(kItem, {3, -1})},
      {&typed, "'tags': the shape is impossible", set_shape(kTags, {INT64_MAX, 2})},
      {&typed, "'item': shape [3, 2]; it takes [n] or [n, 1]", set_shape(kItem, {3, 2})},
      {&typed, "'tags': values with lengths", set_shape(kTags, {3, 2})},
      {&typed, "'history.lengths': lengths take", set_shape(kLengths, {1, 2})},
      {&typed, "'price': 4 rows, but 'item' has 3", set_shape(kPrice, {4})},
      {&typed, "'user': 2 rows; a context feature has one, or one for each of the 3", set_shape(kUser, {2})},
      {&typed, "'tags': 1 rows, but 'item' has 3", set_shape(kTags + 1, {1})},
      {&typed, "'user': 0 rows", set_shape(kUser, {0})},
      {&typed, "'tags': 1000000000 rows of no values",
       [&](auto* r) {
         r->mutable_inputs()->DeleteSubrange(kTags + 1, 1), set_shape(kTags, {1'000'000'000, 0})(r);
       }},
      {&typed, "candidates are more than anything",
       [&](auto* r) { r->mutable_inputs()->DeleteSubrange(kItem, 4), set_shape(kUser, {INT64_MAX})(r); }},
      {&typed, "'item': datatype 'FP32'; it takes INT64", set_type(kItem, "FP32")},
      {&typed, "'item': datatype 'BOOL'; it takes INT64", set_type(kItem, "BOOL")},
      {&typed, "'item': datatype ''; it takes INT64", set_type(kItem, "")},
      {&typed, "'tags': datatype 'INT64'; it takes BYTES", set_type(kTags, "INT64")},
      {&typed, "'price': datatype 'BYTES'; it takes FP32", set_type(kPrice, "BYTES")},
      {&typed, "'price': datatype 'FP128'; it takes FP32", set_type(kPrice, "FP128")},
      {&typed, "'history.lengths': datatype 'FP32'; it takes INT32", set_type(kLengths, "FP32")},
      {&typed, "'price': values of FP16 travel in raw_input_contents alone", set_type(kPrice, "FP16")},
      {&typed, "'item': values outside of uint64_contents", set_type(kItem, "UINT64")},
      {&typed, "'item': values outside of int64_contents",
       [](auto* r) { r->mutable_inputs(kItem)->mutable_contents()->add_bytes_contents(std::string(1, '5')); }},
      {&typed, "'item': 2 values; the shape says 3",
       [](auto* r) { r->mutable_inputs(kItem)->mutable_contents()->mutable_int64_contents()->RemoveLast(); }},
      {&typed, "'item': more than 3 values; the shape says 3",
       [](auto* r) { r->mutable_inputs(kItem)->mutable_contents()->add_int64_contents(1); }},
      {&typed, "'item': 0 values; the shape says 3", [](auto* r) { r->mutable_inputs(kItem)->clear_contents(); }},
      {&typed, "'tags': more than",
       [](auto* r) { r->mutable_inputs(kTags)->mutable_contents()->add_bytes_contents(std::string(1, 'x')); }},
      {&typed, "'history.lengths': the length -1 is impossible",
       [](auto* r) { r->mutable_inputs(kLengths)->mutable_contents()->set_int_contents(0, -1); }},
      {&typed, "'item.lengths': lengths without a tensor that has the values",
       [](auto* r) { *r->mutable_inputs(kItem)->mutable_name() += ".lengths"; }},
      {&typed, "'history.lengths': stands twice", [](auto* r) { *r->add_inputs() = r->inputs(kLengths); }},
      {&typed, "1 raw_input_contents for 7 inputs", [](auto* r) { r->add_raw_input_contents(std::string(1, 0)); }},
      {&raw, "6 raw_input_contents for 7 inputs", [](auto* r) { r->mutable_raw_input_contents()->RemoveLast(); }},
      {&raw, "8 raw_input_contents for 7 inputs", [](auto* r) { r->add_raw_input_contents(std::string()); }},
      {&raw, "'item': typed contents beside raw_input_contents",
       [](auto* r) { r->mutable_inputs(kItem)->mutable_contents()->add_int64_contents(1); }},
      {&raw, "'item': 25 bytes of raw contents for 3 values of 8",
       [](auto* r) { r->mutable_raw_input_contents(kItem)->push_back(0); }},
      {&raw, "'item': 16 bytes of raw contents for 3 values of 8",
       [](auto* r) { r->mutable_raw_input_contents(kItem)->resize(16); }},
      {&raw, "'tags': the raw contents end within value",
       [](auto* r) { r->mutable_raw_input_contents(kTags)->pop_back(); }},
      {&raw, "'tags': the raw contents end within value 0",
       [](auto* r) { r->mutable_raw_input_contents(kTags)->replace(0, 4, "\xFF\xFF\xFF\xFF"); }},
      {&raw, "'tags': 3 bytes of raw contents follow the last",
       [](auto* r) { r->mutable_raw_input_contents(kTags)->append("end"); }},
      {&typed, "'score': no such output; there is 'scores' alone",
       [](auto* r) { r->add_outputs()->set_name("score"); }},
      {&typed, "shared memory",
       [](auto* r) { (*r->mutable_inputs(0)->mutable_parameters())["shared_memory_region"].set_string_param("/x"); }},
      {&typed, "shared memory",
       [](auto* r) {
         r->add_outputs()->set_name("scores");
         (*r->mutable_outputs(0)->mutable_parameters())["shared_memory_region"].set_string_param("/x");
       }},
      {&typed, "inputs.name: 257 bytes", [](auto* r) { r->mutable_inputs(kItem)->set_name(std::string(257, 'x')); }},
      {&typed, "model_name: 257 bytes", [](auto* r) { r->set_model_name(std::string(257, 'x')); }},
      {&typed, "id: 4097 bytes", [](auto* r) { r->set_id(std::string(4097, 'x')); }},
  };
  for (const Case& c : cases) {
    ModelInferRequest request = *c.good;
    c.change(&request);
    const absl::Status status = Parse(request);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.expected;
    EXPECT_THAT(status.message(), HasSubstr(c.expected));
  }
  // Left to the encoder, which names the feature.
  for (const Change& change : {Change([](auto* r) { *r->add_inputs() = r->inputs(kItem); }), Change([&](auto* r) {
                                 r->mutable_inputs(kTags + 1)->mutable_contents()->set_int_contents(0, 100);
                               })}) {
    ModelInferRequest request = typed;
    change(&request);
    ASSERT_TRUE(Parse(request).ok()) << Parse(request);
    std::vector<float> scores;
    EXPECT_EQ(Predict(&scores).code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST_F(InferRequestAdapterTest, WhatIsTolerated) {
  ModelInferRequest request = MakeInferRequest(NativeRequest(3, 1, false), Config(), true);
  (*request.mutable_parameters())["timeout"].set_int64_param(1000);
  (*request.mutable_parameters())["priority"].set_uint64_param(1);
  (*request.mutable_inputs(0)->mutable_parameters())["note"].set_string_param("x");
  request.add_outputs()->set_name("scores");
  (*request.mutable_outputs(0)->mutable_parameters())["binary_data"].set_bool_param(true);
  for (auto& input : *request.mutable_inputs()) input.mutable_contents();  // typed ones, but empty
  request.GetReflection()->MutableUnknownFields(&request)->AddVarint(1000, 1);
  RequestHead head;
  EXPECT_TRUE(ReadHead(request.SerializeAsString(), &head).ok()) << ReadHead(request.SerializeAsString(), &head);
  EXPECT_TRUE(Parse(request).ok()) << Parse(request);
}

TEST_F(InferRequestAdapterTest, AnotherKindOfAnswerIsRefused) {
  ModelInferRequest request = MakeInferRequest(NativeRequest(3, 1, false), Config(), true);
  request.add_outputs()->set_name("scores");
  (*request.mutable_outputs(0)->mutable_parameters())["classification"].set_int64_param(2);
  EXPECT_THAT(Parse(request).message(), HasSubstr("classification"));
}

TEST_F(InferRequestAdapterTest, HeadIsReadWithoutContents) {
  ModelInferRequest request = MakeInferRequest(NativeRequest(20, 2, false), Config(), true);
  request.set_model_name("ctr");
  RequestHead head;
  const auto read = [&] { return ReadHead(request.SerializeAsString(), &head); };
  ASSERT_TRUE(read().ok());
  EXPECT_EQ(head.model, "ctr");
  EXPECT_EQ(head.version, 0);
  EXPECT_EQ(head.label, "");
  EXPECT_EQ(head.num_candidates, 20);
  request.set_model_version("18446744073709551615");
  ASSERT_TRUE(read().ok());
  EXPECT_EQ(head.version, UINT64_MAX);
  request.set_model_version("stable");
  ASSERT_TRUE(read().ok());
  EXPECT_EQ(head.version, 0);
  EXPECT_EQ(head.label, "stable");
  for (const char* version : {"0", "000", "18446744073709551616", "99999999999999999999999999"}) {
    request.set_model_version(version);
    EXPECT_THAT(read().message(), AllOf(HasSubstr("model_version"), HasSubstr("not a version"))) << version;
  }
  request.Clear();
  AddInput("item", "INT64", {INT64_MAX}, &request);
  ASSERT_TRUE(read().ok());
  EXPECT_EQ(head.num_candidates, UINT32_MAX);
  ASSERT_TRUE(ReadHead("", &head).ok());
  EXPECT_EQ(head.model, "");
  EXPECT_EQ(head.label, "");
  EXPECT_EQ(head.num_candidates, 0);
}

TEST_F(InferRequestAdapterTest, WhatIsNoRequestIsRefused) {
  const std::string not_utf8 = "\x0A\x01\xFF";
  for (const std::string& bytes :
       {std::string("hello"), std::string("\x08"), std::string(3, '\xFF'), std::string("\x2A\x05\x08"),
        std::string(1, '\0'), not_utf8, std::string("\x1A\x01\xFF"), std::string("\x2A\x03") + not_utf8,
        std::string("\x32\x03") + not_utf8, std::string("\x2A\x04\x2A\x00\x2A\x00", 6) /* contents twice */,
        std::string("\x2A\x03\x1A\x01\xFF") /* a dimension cut short */}) {
    RequestHead head;
    EXPECT_EQ(ReadHead(bytes, &head).code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(Parse(bytes).code(), absl::StatusCode::kInvalidArgument);
  }
  // What a name is quoted as can travel in a header.
  ModelInferRequest request;
  AddInput("a\nb", "INT64", {1}, &request)->set_name("tags\n.lengths");
  AddInput("item", "INT64", {1}, &request);
  EXPECT_THAT(Parse(request).message(), HasSubstr("'item'"));
}

TEST_F(InferRequestAdapterTest, TensorsAreBounded) {
  std::string bytes;
  for (size_t i = 0; i < kMaxTensors; ++i) bytes += std::string("\x2A\0", 2);
  RequestHead head;
  EXPECT_TRUE(ReadHead(bytes, &head).ok());
  bytes += std::string("\x2A\0", 2);
  EXPECT_THAT(ReadHead(bytes, &head).message(), HasSubstr("8192 inputs"));
  bytes.clear();
  for (size_t i = 0; i <= kMaxTensors; ++i) bytes += std::string("\x3A\0", 2);
  EXPECT_THAT(ReadHead(bytes, &head).message(), HasSubstr("8192 raw_input_contents"));
  EXPECT_LT(adapter_.kept_bytes(), 3 << 20);
}

// Whatever the bytes: nothing is read beyond them, what is accepted can be encoded, and admission was not told of fewer
// candidates.
TEST_F(InferRequestAdapterTest, DamagedRequestsAreRefusedOrScored) {
  std::mt19937 random(7);
  const google::protobuf::LogSilencer silencer;
  int accepted = 0, refused = 0;
  for (int round = 0; round < 20000; ++round) {
    const ModelInferRequest good =
        MakeInferRequest(NativeRequest(1 + round % 4, round, round % 5 == 0), Config(), round % 2 == 0);
    std::string bytes = good.SerializeAsString();
    for (int i = 0; i < 1 + round % 3; ++i) bytes[random() % bytes.size()] = static_cast<char>(random());
    RequestHead head;
    const absl::Status read = ReadHead(bytes, &head);
    if (!Parse(bytes, round % 3 == 0 ? 0 : 11).ok()) {
      ++refused;
      continue;
    }
    ++accepted;
    ASSERT_GE(head.num_candidates, adapter_.view().num_candidates) << round;
    if (ModelInferRequest full; full.ParseFromString(bytes) && read.ok()) {
      ASSERT_EQ(head.model, full.model_name()) << round;
    }
    if (adapter_.view().num_candidates > 10'000) continue;
    std::vector<float> scores;
    const absl::Status status = Predict(&scores);
    ASSERT_TRUE(status.ok() || absl::IsInvalidArgument(status)) << status;
  }
  EXPECT_GT(accepted, 2000);
  EXPECT_GT(refused, 2000);
}

TEST_F(InferRequestAdapterTest, LargeRequestsDoNotKeepTheirMemory) {
  ModelInferRequest large;
  AddInput("item", "INT64", {1'000'000}, &large);
  large.add_raw_input_contents(std::string(8'000'000, '\0'));
  ASSERT_TRUE(Parse(large).ok());
  EXPECT_GT(adapter_.kept_bytes(), WireProtocol::kMaxKeptBytes);
  adapter_.Recycle();
  EXPECT_LT(adapter_.kept_bytes(), 4096);
  RequestHead head;
  ASSERT_TRUE(ReadHead(large.SerializeAsString(), &head).ok());
  EXPECT_EQ(head.num_candidates, 1'000'000);
  EXPECT_LT(adapter_.kept_bytes(), 4096);
  ASSERT_TRUE(Parse(MakeInferRequest(NativeRequest(500, 1, false), Config(), true)).ok());
  adapter_.Recycle();
  EXPECT_GT(adapter_.kept_bytes(), 500 * sizeof(int64_t));  // kept for the next one
}

}  // namespace
}  // namespace hilomoe
